//! Who may make a call, where the mesh asks for certificates.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tonic::Status;

use super::Peer;
use crate::caller::{Caller, Refusal, Refusals, Stage};
use crate::mesh_policy;

/// Lets a call through that its caller may make; handlers find the [`Caller`].
pub(super) async fn admit(
    State(refusals): State<Arc<Refusals>>,
    mut request: Request,
    next: Next,
) -> Response {
    match caller(&request, &refusals) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err((refusal, status)) => {
            refusals.note(Stage::Call, refusal);
            status.into_http::<Body>()
        }
    }
}

fn caller(request: &Request, refusals: &Refusals) -> Result<Caller, (Refusal, Status)> {
    let method = request.uri().path();
    let peer = request.extensions().get::<Peer>();
    let refuse = |who: String, why: String, status: fn(String) -> Status| {
        // Nobody may fill the log with names of his own.
        let what = method.chars().take(128).collect();
        (Refusal { who, what, why: why.clone() }, status(why))
    };
    let identity = match peer.and_then(|peer| peer.identity.as_deref()) {
        Some(Ok(identity)) => identity.clone(),
        Some(Err(reason)) => {
            let who = peer.map_or_else(String::new, Peer::stranger);
            let why = format!("the certificate says of nobody of the mesh: {reason}");
            return Err(refuse(who, why, Status::unauthenticated));
        }
        None => {
            let who = peer.map_or_else(String::new, Peer::stranger);
            return Err(refuse(who, "no certificate was shown".into(), Status::unauthenticated));
        }
    };
    if !mesh_policy::allows(identity.role(), method) {
        let why = format!("a {} may not call {method}", identity.role());
        return Err(refuse(identity.to_string(), why, Status::permission_denied));
    }
    Ok(Caller { identity, method: method.to_owned(), refusals: refusals.clone() })
}
