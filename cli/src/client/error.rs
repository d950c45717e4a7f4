//! Why a question to the gateway was not answered.

use std::time::Duration;

use super::Problem;

/// Why a question to the gateway was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody answers there.
    #[error("cannot reach the gateway at {url}: {cause}; is `memharvest up` running? or pass --url")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What the network said.
        cause: String,
    },
    /// The answer did not come in time.
    #[error("the gateway at {url} did not answer within {} s; see its log and its /readyz", .after.as_secs())]
    TimedOut {
        /// Where it was asked.
        url: String,
        /// How long was waited.
        after: Duration,
    },
    /// Something answers that is no gateway, or one of another version.
    #[error("{url} answered with {what}; is that the address of a memharvest gateway?")]
    Unexpected {
        /// What was asked for.
        url: String,
        /// What came.
        what: String,
    },
    /// The gateway refused, and says why.
    #[error("{0}")]
    Refused(Problem),
    /// The token has characters that no header takes.
    #[error(
        "the token holds a line break or another character that cannot be sent; check --token and MEMHARVEST_TOKEN"
    )]
    Token,
    /// The authorities cannot be used.
    #[error("{0}")]
    Authorities(String),
    /// The author has characters that no header takes.
    #[error("--author must be printable ASCII")]
    Author,
}

impl ClientError {
    /// Whether the gateway answered 404.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.status == 404)
    }
}
