//! Tokens of an identity provider (`OpenID` Connect): JWTs, checked against the provider's keys.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use memharvest_proto::gateway::v1::OpenIdProvider;
use memharvest_proto::registry::v1::Role;
use memharvest_services::shutdown::Stop;
use serde_json::Value;

use super::identity::{Denied, Identity};

mod keys;
mod sign_in;

pub(crate) use keys::KeySource;
pub(crate) use sign_in::{Client, Redemption};

use sign_in::SignIn;

/// How often the provider's keys are read anew.
const REFRESH_EVERY: Duration = Duration::from_mins(5);
/// How soon they are tried again where there are none yet.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// A token with a key that is not known makes them be read at once, but not more often than this.
const ASKED_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// What clocks may differ by.
const LEEWAY_S: u64 = 30;
/// Signatures that only the provider can make. Those with a shared secret are none of them.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What a token must say.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    /// Who issued it.
    pub(crate) issuer: String,
    /// Whom it is for.
    pub(crate) audience: String,
    /// Where the roles are: a claim, or a path of claims with dots.
    pub(crate) roles_claim: String,
    /// Where the name is.
    pub(crate) name_claim: String,
    /// What a word of the provider means here.
    pub(crate) roles: Vec<(String, Role)>,
}

/// The provider, as this gateway knows it. Clones share the keys.
#[derive(Clone, Debug)]
pub(crate) struct Oidc(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    claims: Claims,
    source: KeySource,
    /// `None`: browsers cannot sign in.
    sign_in: Option<SignIn>,
    keys: RwLock<Option<Arc<JwkSet>>>,
    /// When the keys were last asked for; held while they are.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

impl Oidc {
    pub(crate) fn new(claims: Claims, source: KeySource, client: Option<Client>) -> Self {
        Self(Arc::new(Inner {
            claims,
            source,
            sign_in: client.map(SignIn::new),
            keys: RwLock::default(),
            asked: tokio::sync::Mutex::default(),
        }))
    }

    /// Keeps the keys fresh until the process stops. The last ones hold while the provider is away.
    pub(crate) async fn keep_fresh(self, stop: Stop) {
        loop {
            self.refresh().await;
            let pause = if self.keys().is_some() { REFRESH_EVERY } else { RETRY_AFTER };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.requested() => return,
            }
        }
    }

    /// Who shows this token.
    pub(crate) async fn check(&self, token: &str) -> Result<Identity, Denied> {
        let header = decode_header(token).map_err(|_| Denied::Unknown("the token is no JWT".into()))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Denied::Unknown(format!("tokens signed with {:?} are not taken", header.alg)));
        }
        if self.find(&header).is_none() {
            self.refresh().await;
        }
        let key = self.find(&header).ok_or_else(|| match self.keys() {
            Some(_) => {
                Denied::Unknown("the token is signed with a key that the issuer does not publish".into())
            }
            None => Denied::Undecided("the issuer's keys could not be read yet".into()),
        })?;
        let claims = &self.0.claims;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[&claims.issuer]);
        validation.set_audience(&[&claims.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let key = DecodingKey::from_jwk(&key)
            .map_err(|error| Denied::Unknown(format!("the token's key cannot be used: {error}")))?;
        let found = decode::<Value>(token, &key, &validation)
            .map_err(|error| Denied::Unknown(format!("the token does not hold: {error}")))?;
        claims.identity(&found.claims)
    }

    /// Where browsers sign in; `None`: they cannot.
    pub(crate) async fn provider(&self) -> Option<OpenIdProvider> {
        self.0.sign_in.as_ref()?.provider(&self.0.claims.issuer).await
    }

    /// The token that a provider's code stands for and that opens this gateway.
    pub(crate) async fn redeem(&self, redemption: &Redemption) -> Result<String, Denied> {
        let sign_in = self.0.sign_in.as_ref();
        let sign_in = sign_in.ok_or_else(|| Denied::Unknown("browsers cannot sign in here".into()))?;
        let tokens = sign_in.redeem(&self.0.claims.issuer, redemption).await.map_err(|error| {
            Denied::Unknown(format!("the identity provider gives no token for this sign-in: {error}"))
        })?;
        let mut refused = Denied::Unknown("the identity provider gave no token".into());
        for token in tokens {
            match self.check(&token).await {
                Ok(_) => return Ok(token),
                // That somebody is known but has no role says more than that one of his tokens is for somebody else.
                Err(denied @ Denied::NoRole(_)) => return Err(denied),
                Err(denied) => refused = denied,
            }
        }
        Err(refused)
    }

    fn keys(&self) -> Option<Arc<JwkSet>> {
        self.0.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key that a token names; one that names none may use the only one there is.
    fn find(&self, header: &Header) -> Option<Jwk> {
        let keys = self.keys()?;
        match &header.kid {
            Some(kid) => keys.find(kid).cloned(),
            None => <[Jwk; 1]>::try_from(keys.keys.clone()).ok().map(|[only]| only),
        }
    }

    /// Reads the keys, unless somebody began to after this was asked.
    async fn refresh(&self) {
        let wanted_at = Instant::now();
        let mut asked = self.0.asked.lock().await;
        if let Some(at) = *asked {
            if at >= wanted_at {
                return;
            }
            tokio::time::sleep_until((at + ASKED_AT_MOST_EVERY).into()).await;
        }
        *asked = Some(Instant::now());
        match self.0.source.read(&self.0.claims.issuer).await {
            Ok(keys) => *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys)),
            Err(error) => tracing::warn!("cannot read the keys of {}: {error}", self.0.claims.issuer),
        }
    }
}

impl Claims {
    /// Name and highest role of a token that holds.
    fn identity(&self, claims: &Value) -> Result<Identity, Denied> {
        let name = at_path(claims, &self.name_claim).and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            return Err(Denied::Unknown(format!("the token's claim `{}` names nobody", self.name_claim)));
        }
        let told = match at_path(claims, &self.roles_claim) {
            Some(Value::String(words)) => words.split_whitespace().collect(),
            Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let roles = self.roles.iter().filter(|(word, _)| told.contains(&word.as_str()));
        let role = roles.map(|(_, role)| *role).max_by_key(|role| i32::from(*role));
        let role = role.ok_or_else(|| {
            Denied::NoRole(format!("the token's claim `{}` names no role of this gateway", self.roles_claim))
        })?;
        Ok(Identity { name: name.to_owned(), role })
    }
}

/// The claim of exactly this name, or else the one at the end of a path with dots.
fn at_path<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| path.split('.').try_fold(claims, |value, name| value.get(name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_highest_role_counts_wherever_it_is_written() {
        let mut claims = Claims {
            issuer: String::new(),
            audience: String::new(),
            roles_claim: "realm_access.roles".into(),
            name_claim: "sub".into(),
            roles: vec![("ops".into(), Role::Operator), ("look".into(), Role::Viewer)],
        };
        let of = |claims: &Claims, token: Value| claims.identity(&token).map(|identity| identity.role);
        let nested = |roles: Value| json!({"sub": "ann", "realm_access": {"roles": roles}});
        assert_eq!(of(&claims, nested(json!(["look", "ops", "x"]))), Ok(Role::Operator));
        assert!(matches!(of(&claims, nested(json!(["x"]))), Err(Denied::NoRole(_))));
        assert!(matches!(of(&claims, json!({"sub": "ann"})), Err(Denied::NoRole(_))));
        assert!(matches!(
            of(&claims, json!({"sub": "", "realm_access": {"roles": ["ops"]}})),
            Err(Denied::Unknown(_))
        ));
        claims.roles_claim = "https://mesh.example/roles".into();
        assert_eq!(
            of(&claims, json!({"sub": "ann", "https://mesh.example/roles": "look"})),
            Ok(Role::Viewer)
        );
    }
}
