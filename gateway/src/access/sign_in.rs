//! `POST /oidc/token`: a browser that comes back from the identity provider gets the token that it then shows.

use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;

use super::oidc::Redemption;
use super::{Access, Denied, Refusal};
use crate::rest::body::JsonBody;

/// Redeems the provider's code.
pub(crate) async fn redeem(
    Extension(access): Extension<Access>,
    JsonBody(redemption): JsonBody<Redemption>,
) -> Response {
    let oidc = access.0.bearers.as_ref().and_then(super::Bearers::oidc);
    let redeemed = match oidc {
        Some(oidc) => oidc.redeem(&redemption).await,
        None => Err(Denied::Unknown("there is no identity provider here".into())),
    };
    match redeemed {
        Ok(token) => Json(json!({ "token": token })).into_response(),
        Err(denied) => Refusal::Denied(denied).answer(None),
    }
}
