//! Tokens: their secrets, when they hold, and when they were last used. Pure but for [`new_secret`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use memharvest_proto::registry::v1::Token;
use sha2::{Digest, Sha256};

use crate::time::{instant_from_ns, instant_to_ns};

/// How every secret begins, so that people and scanners know one when they see it.
pub const PREFIX: &str = "mh_";

/// Longest time to live, in seconds: ten years.
pub const LONGEST_TTL_S: i64 = 3650 * 86_400;

/// A new secret: the prefix and 256 random bits in hexadecimal digits.
#[must_use]
pub fn new_secret() -> String {
    secret_of(rand::random())
}

/// The secret of these random bits.
#[must_use]
pub fn secret_of(random: [u8; 32]) -> String {
    let digits = random.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]));
    PREFIX.chars().chain(digits).collect()
}

/// What is stored of a secret. It has 256 random bits: nobody can try them all, and no salt makes it harder.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Why a token opens nothing; `None` where it holds.
#[must_use]
pub fn flaw(token: &Token, now_ns: i64) -> Option<&'static str> {
    if token.revoked_at.is_some() {
        return Some("the token is revoked");
    }
    let expired = token.expires_at.as_ref().and_then(instant_to_ns).is_some_and(|at| at <= now_ns);
    expired.then_some("the token has expired")
}

/// The word for a role.
#[must_use]
pub fn role_word(role: memharvest_proto::registry::v1::Role) -> String {
    role.as_str_name().trim_start_matches("ROLE_").to_ascii_lowercase()
}

/// A token for the audit log.
#[must_use]
pub fn audit_json(token: &Token) -> String {
    let at = |at: Option<&prost_types::Timestamp>| {
        let ns = at.and_then(instant_to_ns).map(i128::from);
        ns.and_then(|ns| jiff::Timestamp::from_nanosecond(ns).ok()).map(|at| at.to_string())
    };
    serde_json::json!({
        "name": token.name,
        "role": role_word(token.role()),
        "expires_at": at(token.expires_at.as_ref()),
        "revoked_at": at(token.revoked_at.as_ref()),
    })
    .to_string()
}

/// When tokens were last used, kept in memory until it is written down. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LastUse(Arc<Mutex<BTreeMap<String, i64>>>);

impl LastUse {
    /// A token was used.
    pub fn note(&self, token_id: &str, at_ns: i64) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = used.entry(token_id.to_owned()).or_insert(at_ns);
        *known = at_ns.max(*known);
    }

    /// The token with what is not written down yet.
    pub fn apply(&self, token: &mut Token) {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at_ns) = used.get(&token.token_id) {
            token.last_used_at = Some(instant_from_ns(*at_ns));
        }
    }

    /// Takes what is to be written down.
    #[must_use]
    pub fn take(&self) -> Vec<(String, i64)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }

    /// Puts back what could not be written down.
    pub fn put_back(&self, used: &[(String, i64)]) {
        for (token_id, at_ns) in used {
            self.note(token_id, *at_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_prefix_and_never_comes_twice() {
        assert_eq!(secret_of([0xa5; 32]), format!("mh_{}", "a5".repeat(32)));
        assert_ne!(new_secret(), new_secret());
        assert_ne!(hash("mh_a"), hash("mh_b"));
    }

    #[test]
    fn a_token_holds_until_it_ends_or_is_ended() {
        let token = Token { expires_at: Some(instant_from_ns(10)), ..Token::default() };
        assert_eq!(flaw(&Token::default(), i64::MAX), None);
        assert_eq!(flaw(&token, 9), None);
        assert_eq!(flaw(&token, 10), Some("the token has expired"));
        let revoked = Token { revoked_at: Some(instant_from_ns(1)), ..token };
        assert_eq!(flaw(&revoked, 0), Some("the token is revoked"));
    }

    #[test]
    fn the_newest_use_counts_and_outlives_a_failed_write() {
        let used = LastUse::default();
        used.note("a", 7);
        used.note("a", 5);
        let taken = used.take();
        assert_eq!(taken, [("a".to_owned(), 7)]);
        assert!(used.take().is_empty());
        used.note("a", 9);
        used.put_back(&taken);
        let mut shown = Token { token_id: "a".to_owned(), ..Token::default() };
        used.apply(&mut shown);
        assert_eq!(shown.last_used_at, Some(instant_from_ns(9)));
    }
}
