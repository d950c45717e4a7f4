//! Who a caller is, once that is known.

use memharvest_proto::registry::v1::Role;

/// A caller who has shown who he is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// His name in the audit log.
    pub(crate) name: String,
    /// What he may do.
    pub(crate) role: Role,
}

/// Why a caller is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// He has not shown who he is, or what he showed opens nothing. The text says why.
    Unknown(String),
    /// He is known, and has no role here.
    NoRole(String),
    /// Nobody can tell at the moment.
    Undecided(String),
}
