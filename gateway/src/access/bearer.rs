//! Whom a secret or a token of a caller stands for: asked once, and remembered for a moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memharvest_proto::registry::v1::token_service_client::TokenServiceClient;
use memharvest_proto::registry::v1::{Role, VerifyTokenRequest};
use memharvest_services::rpc_client::RpcChannel;
use tonic::Code;

use super::identity::{Denied, Identity};
use super::oidc::Oidc;

/// How every secret of a static token begins.
const SECRET: &str = "mh_";
/// Longest secret or token.
const LONGEST: usize = 16 * 1024;
/// How long an answer holds: so long a token that was revoked goes on to open.
const HOLDS: Duration = Duration::from_secs(3);
/// Answers that are remembered at most.
const REMEMBERED: usize = 10_000;

/// What was answered, and when, by the secret.
type Known = HashMap<String, (Instant, Result<Identity, Denied>)>;

/// Tells whom secrets stand for. Clones share what they know.
#[derive(Clone, Debug)]
pub(super) struct Bearers {
    /// Where static tokens are known; `None`: they are not taken.
    registry: Option<RpcChannel>,
    oidc: Option<Oidc>,
    known: Arc<Mutex<Known>>,
}

impl Bearers {
    pub(super) fn new(registry: Option<RpcChannel>, oidc: Option<Oidc>) -> Self {
        Self { registry, oidc, known: Arc::default() }
    }

    /// Whether static tokens are taken.
    pub(super) fn takes_tokens(&self) -> bool {
        self.registry.is_some()
    }

    /// The identity provider, if there is one.
    pub(super) fn oidc(&self) -> Option<&Oidc> {
        self.oidc.as_ref()
    }

    /// What is remembered of a secret.
    pub(super) fn remembered(&self, secret: &str) -> Option<Result<Identity, Denied>> {
        let known = self.known();
        let (at, answer) = known.get(secret)?;
        (at.elapsed() < HOLDS).then(|| answer.clone())
    }

    /// Asks whom a secret stands for.
    pub(super) async fn check(&self, secret: &str) -> Result<Identity, Denied> {
        if secret.len() > LONGEST {
            return Err(Denied::Unknown(format!("the token is longer than {LONGEST} bytes")));
        }
        let answer = match (&self.registry, &self.oidc) {
            (Some(registry), _) if secret.starts_with(SECRET) => verify(registry, secret).await,
            (_, Some(oidc)) => oidc.check(secret).await,
            _ => Err(Denied::Unknown("the token is none of this mesh".into())),
        };
        if !matches!(answer, Err(Denied::Undecided(_))) {
            let mut known = self.known();
            if known.len() >= REMEMBERED {
                known.retain(|_, (at, _)| at.elapsed() < HOLDS);
            }
            if known.len() < REMEMBERED {
                known.insert(secret.to_owned(), (Instant::now(), answer.clone()));
            }
        }
        answer
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn verify(registry: &RpcChannel, secret: &str) -> Result<Identity, Denied> {
    let mut tokens = TokenServiceClient::new(registry.clone());
    match tokens.verify_token(VerifyTokenRequest { secret: secret.to_owned() }).await {
        Ok(answer) => {
            let token = answer.into_inner().token.unwrap_or_default();
            match token.role() {
                Role::Unspecified => Err(Denied::NoRole("the token has no role".into())),
                role => Ok(Identity { name: token.name, role }),
            }
        }
        Err(status) if status.code() == Code::Unauthenticated => {
            Err(Denied::Unknown(status.message().to_owned()))
        }
        Err(status) => Err(Denied::Undecided(format!(
            "the registry, which knows the tokens, does not answer: {}",
            status.message()
        ))),
    }
}
