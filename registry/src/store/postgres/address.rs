//! Where the server is. The password is kept to itself.

use std::fmt;

use sqlx::postgres::PgConnectOptions;

/// Parameters that a URL may have.
const PARAMETERS: [&str; 16] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
];

/// Why a URL leads nowhere. The URL is not repeated: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It cannot be read.
    #[error("it is no URL of a PostgreSQL database ({0}); write postgres://USER@HOST:PORT/DATABASE")]
    Malformed(String),
    /// A parameter that nobody knows.
    #[error("the URL has a parameter {0}, which is not known; leave it out")]
    Parameter(String),
}

/// A server, a database on it, and how to get in.
#[derive(Clone)]
pub struct Address {
    options: PgConnectOptions,
}

impl Address {
    /// Reads a URL. What it does not say comes from libpq's environment (`PGPASSWORD`, `PGPASSFILE`, `PGSSLMODE`, …).
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        for parameter in query.split('&').filter_map(|pair| pair.split('=').next()) {
            if !parameter.is_empty() && !PARAMETERS.contains(&parameter) {
                return Err(AddressError::Parameter(parameter.to_owned()));
            }
        }
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| match error {
            sqlx::Error::Configuration(cause) => AddressError::Malformed(cause.to_string()),
            error => AddressError::Malformed(error.to_string()),
        })?;
        Ok(Self { options: options.application_name("memharvest-registry") })
    }

    pub(super) fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// The name of the database.
    pub(super) fn database(&self) -> &str {
        self.options.get_database().unwrap_or_else(|| self.user())
    }

    /// The user.
    pub(super) fn user(&self) -> &str {
        self.options.get_username()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", self.user())?;
        match self.options.get_socket() {
            Some(socket) => write!(f, "{}", socket.display())?,
            None => write!(f, "{}:{}", self.options.get_host(), self.options.get_port())?,
        }
        write!(f, "/{}", self.database())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
