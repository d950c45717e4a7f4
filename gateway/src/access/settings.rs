//! Who is let in.

use std::path::PathBuf;

use memharvest_proto::registry::v1::Role as WireRole;
use memharvest_services::settings::SettingsError;
use memharvest_services::tls::ServerTls;

use super::oidc::{Claims, Client, KeySource, Oidc};
use crate::rest::words::Role;

/// Where `--help` lists them.
const HEADING: &str = "Access";

/// Who is let in, and how he shows who he is.
#[derive(Clone, Debug, clap::Args)]
pub struct AccessSettings {
    /// Ask every caller for a token, and take the static ones that the registry knows
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_AUTH_TOKENS")]
    pub auth_tokens: bool,

    /// Ask every caller for a token, and take JWTs of this `OpenID` Connect issuer
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_OIDC_ISSUER", value_name = "URL")]
    pub oidc_issuer: Option<String>,

    /// The audience that such a JWT must be for
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_OIDC_AUDIENCE", value_name = "TEXT")]
    pub oidc_audience: Option<String>,

    /// The issuer's keys, a JSON Web Key Set [default: where its discovery document says]
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_OIDC_JWKS", value_name = "FILE|URL")]
    pub oidc_jwks: Option<String>,

    /// The claim with the caller's roles; dots lead into objects
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_OIDC_ROLES_CLAIM", value_name = "CLAIM", default_value = "roles")]
    pub oidc_roles_claim: String,

    /// The claim with the caller's name, as the audit log shows it
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_OIDC_NAME_CLAIM", value_name = "CLAIM", default_value = "sub")]
    pub oidc_name_claim: String,

    /// What a word of the issuer means here, such as mesh-admins=admin; repeat it for several [default: viewer, operator
    /// and admin mean themselves]
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_OIDC_ROLE", value_name = "WORD=ROLE", value_parser = role_of_word)]
    pub oidc_role: Vec<(String, Role)>,

    /// What this gateway is called at the issuer: people can then sign in to the dashboard there
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_OIDC_CLIENT_ID", value_name = "ID")]
    pub oidc_client_id: Option<String>,

    /// The secret of that client; none for a public client
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_OIDC_CLIENT_SECRET", value_name = "SECRET", hide_env_values = true, requires = "oidc_client_id")]
    pub oidc_client_secret: Option<String>,

    /// What the dashboard asks the issuer for
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_OIDC_SCOPE", value_name = "SCOPES", default_value = "openid")]
    pub oidc_scope: String,

    /// Chain of certificates in PEM: the port speaks TLS. Read anew when the file changes
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key in PEM
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Requests that one caller may make in a second, twice as many at once; 0: any number. Callers are told apart by their
    /// tokens, or by their addresses
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_RATE_LIMIT", value_name = "NUMBER", default_value = "1000")]
    pub rate_limit: u32,
}

impl AccessSettings {
    /// Whether callers are asked who they are.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.auth_tokens || self.oidc_issuer.is_some()
    }

    /// The port's TLS; `None`: it has none.
    ///
    /// # Errors
    /// The files cannot be used.
    pub(crate) fn tls(&self) -> Result<Option<ServerTls>, SettingsError> {
        let (Some(chain), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        let tls = ServerTls::load(chain, key);
        tls.map(Some).map_err(|error| SettingsError::Refused(format!("--tls-cert, --tls-key: {error}")))
    }

    pub(crate) fn validate(&self) -> Result<(), SettingsError> {
        let refused = |message: &str| Err(SettingsError::Refused(message.into()));
        match (&self.oidc_issuer, &self.oidc_audience) {
            (Some(_), None) => refused(
                "--oidc-issuer needs --oidc-audience: a token for somebody else must not open this gateway",
            ),
            (None, Some(_)) => refused("--oidc-audience needs --oidc-issuer"),
            (None, None) if self.oidc_jwks.is_some() => refused("--oidc-jwks needs --oidc-issuer"),
            (None, None) if self.oidc_client_id.is_some() => refused("--oidc-client-id needs --oidc-issuer"),
            _ => match self.oidc_jwks.as_deref().map(str::parse::<KeySource>) {
                Some(Err(error)) => Err(SettingsError::Refused(format!("--oidc-jwks: {error}"))),
                _ => Ok(()),
            },
        }
    }

    pub(super) fn oidc(&self) -> Option<Oidc> {
        let own =
            [Role::Viewer, Role::Operator, Role::Admin].map(|role| (role.as_str().to_owned(), role.wire()));
        let given = |(word, role): &(String, Role)| (word.clone(), role.wire());
        let claims = Claims {
            issuer: self.oidc_issuer.clone()?,
            audience: self.oidc_audience.clone()?,
            roles_claim: self.oidc_roles_claim.clone(),
            name_claim: self.oidc_name_claim.clone(),
            roles: if self.oidc_role.is_empty() {
                Vec::<(String, WireRole)>::from(own)
            } else {
                self.oidc_role.iter().map(given).collect()
            },
        };
        let source = self.oidc_jwks.as_deref().and_then(|source| source.parse().ok());
        let client = self.oidc_client_id.clone().map(|id| Client {
            id,
            secret: self.oidc_client_secret.clone(),
            scope: self.oidc_scope.clone(),
        });
        Some(Oidc::new(claims, source.unwrap_or(KeySource::Discovery), client))
    }
}

fn role_of_word(text: &str) -> Result<(String, Role), String> {
    let (word, role) =
        text.rsplit_once('=').filter(|(word, _)| !word.is_empty()).ok_or("write it as WORD=ROLE")?;
    Ok((word.to_owned(), role.parse()?))
}
