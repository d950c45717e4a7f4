//! Why the program could not do what was asked, and its exit code.

use memharvest_services::settings::SettingsError;

use crate::certs::CertsError;
use crate::client::ClientError;
use crate::up::UpError;
use crate::verbs::backtest::BacktestFailure;

/// Why the program could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The mesh did not start.
    #[error(transparent)]
    Up(Box<UpError>),
    /// The gateway did not answer, or refused.
    #[error(transparent)]
    Gateway(#[from] ClientError),
    /// There is no certificate.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// There is no backtest.
    #[error(transparent)]
    Backtest(#[from] BacktestFailure),
    /// Settings that do not fit each other.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A load that nobody took.
    #[error("no reading was answered by {url}: {cause}")]
    NothingAnswered {
        /// The predictor.
        url: String,
        /// What was in the way.
        cause: String,
    },
    /// Standard output is closed.
    #[error("cannot write the answer: {0}")]
    Output(std::io::Error),
    /// What was left could not be cleared up.
    #[error("cannot clear up: {0}")]
    Keeper(std::io::Error),
    /// No machine has that name.
    #[error("there is no virtual machine named {0:?}; `memharvest vms` lists them")]
    NoSuchMachine(String),
    /// Several machines have that name.
    #[error("several virtual machines are named {name:?}: {machines}; name one by its UUID")]
    Ambiguous {
        /// The name.
        name: String,
        /// Their UUIDs and hosts.
        machines: String,
    },
    /// A change that changes nothing.
    #[error("nothing to change: give at least one field, such as --headroom-ratio 0.1, or --unset FIELD")]
    NothingToChange,
}

impl Failure {
    /// 0 fine, 2 usage, 64 bad settings, 1 anything else.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Up(error) => error.exit_code(),
            Self::NothingToChange => 2,
            Self::Settings(_) => 64,
            Self::Certs(error) => error.exit_code(),
            Self::Backtest(failure) => failure.exit_code(),
            // `memharvest vms | head` is no failure.
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
            _ => 1,
        }
    }
}
