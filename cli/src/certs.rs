//! `memharvest certs`: a private authority for the mesh, and certificates for its members.

mod authority;
mod files;
mod join;
mod kubernetes;
mod ledger;
mod serve;
mod ticket;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memharvest_services::tls::identity::{Identity, Role};

use crate::verbs::print;
use authority::{Authority, Wanted};

/// Certificates of the mesh: a private authority, its members, and how hosts join
#[derive(Debug, clap::Args)]
pub(crate) struct CertsArgs {
    #[command(subcommand)]
    action: Action,
}

/// Where the authority is kept.
#[derive(Debug, clap::Args)]
struct Kept {
    /// Folder of the authority: its certificate ca.crt, its key ca.key, and the tickets that were given out
    #[arg(long = "ca-dir", env = "MEMHARVEST_CA_DIR", value_name = "DIR", default_value = "memharvest-ca")]
    folder: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a private authority
    Init {
        #[command(flatten)]
        kept: Kept,
        /// Its name, as its certificate shows it
        #[arg(long, default_value = "memharvest mesh")]
        name: String,
        /// How long it holds
        #[arg(long, value_name = "DURATION", default_value = "10years", value_parser = valid_for)]
        valid: Duration,
    },
    /// Make the certificate and the key of a member, on the authority's machine
    Issue {
        #[command(flatten)]
        kept: Kept,
        /// What it is: collector, predictor, gateway or registry
        #[arg(value_name = "ROLE")]
        role: Role,
        /// Its name; a collector's is the id of its host, or `*` for one that replays or invents many hosts
        #[arg(value_name = "NAME")]
        name: String,
        /// A DNS name or an address that others reach it under; repeat it for several
        #[arg(long = "san", value_name = "NAME|ADDRESS")]
        names: Vec<String>,
        /// How long it holds
        #[arg(long, value_name = "DURATION", default_value = "90days", value_parser = valid_for)]
        valid: Duration,
        /// Folder for ca.crt, tls.crt and tls.key; they are replaced where they are there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Where `certs serve` is reached, written into the folder too, so that `certs renew` finds it
        #[arg(long, env = "MEMHARVEST_CA_URL", value_name = "URL")]
        ca_url: Option<String>,
    },
    /// Revoke all certificates that a member has: its key was stolen, or it is gone. It joins again with a new one
    Revoke {
        #[command(flatten)]
        kept: Kept,
        /// What it is: collector, predictor, gateway or registry
        #[arg(value_name = "ROLE")]
        role: Role,
        /// Its name; a collector's is the id of its host
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Write a ticket with which a host gets its collector's certificate, once; to standard output
    Ticket {
        #[command(flatten)]
        kept: Kept,
        /// The host's id (--host-id of its collector, by default /etc/machine-id)
        #[arg(long, value_name = "ID")]
        host: String,
        /// Where `certs serve` is reached, such as <https://ca.example.org:7409>
        #[arg(long, env = "MEMHARVEST_CA_URL", value_name = "URL")]
        ca_url: String,
        /// A DNS name or an address of the host, for its certificate; repeat it for several
        #[arg(long = "san", value_name = "NAME|ADDRESS")]
        names: Vec<String>,
        /// How long the ticket can be used
        #[arg(long, value_name = "DURATION", default_value = "15min", value_parser = valid_for)]
        ttl: Duration,
        /// How long the certificate holds
        #[arg(long, value_name = "DURATION", default_value = "30days", value_parser = valid_for)]
        valid: Duration,
    },
    /// Exchange tickets for certificates, and certificates for fresh ones, until told to stop
    Serve {
        #[command(flatten)]
        kept: Kept,
        /// Where to listen
        #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7409")]
        listen: SocketAddr,
        /// A DNS name or an address that hosts reach it under; repeat it for several
        #[arg(long = "san", value_name = "NAME|ADDRESS", default_values = ["localhost", "127.0.0.1"])]
        names: Vec<String>,
        #[command(flatten)]
        kubernetes: kubernetes::KubernetesArgs,
    },
    /// Get this host's certificate for a ticket, or in a pod for its token
    Join {
        /// The ticket's file; - for standard input
        #[arg(value_name = "TICKET", required_unless_present = "kubernetes_token")]
        ticket: Option<PathBuf>,
        /// The file of a service account's token for the audience memharvest-certs
        #[arg(long, value_name = "FILE", conflicts_with = "ticket", requires = "ca_url")]
        kubernetes_token: Option<PathBuf>,
        /// Where `certs serve` is reached; a ticket knows it
        #[arg(long, env = "MEMHARVEST_CA_URL", value_name = "URL")]
        ca_url: Option<String>,
        /// Folder for ca.crt, tls.crt and tls.key
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// With a pod's token: do it again and again, until told to stop, the first time after this pause; a try that fails is told, and made
        /// again after a minute
        #[arg(long, value_name = "DURATION", value_parser = valid_for, conflicts_with = "ticket")]
        every: Option<Duration>,
    },
    /// Exchange this host's certificate for a fresh one, before it expires
    Renew {
        /// Where `certs serve` is reached [default: what ca.url in the folder says]
        #[arg(long, env = "MEMHARVEST_CA_URL", value_name = "URL")]
        ca_url: Option<String>,
        /// Folder of ca.crt, tls.crt and tls.key
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Do it again and again, until told to stop; a try that fails is told, and made again after a minute
        #[arg(long, value_name = "DURATION", value_parser = valid_for)]
        every: Option<Duration>,
    },
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertsError {
    /// A name, an address or a URL that cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The system refused.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is an authority already.
    #[error(
        "{} holds an authority already; members would no longer know each other: choose another --ca-dir",
        .0.display()
    )]
    Exists(PathBuf),
    /// There is none.
    #[error("{} holds no authority; make one with `memharvest certs init`, or name its folder by --ca-dir", .0.display())]
    NoAuthority(PathBuf),
    /// A file holds something else than it should.
    #[error("{}: {what}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make the certificate: {0}")]
    Making(#[from] rcgen::Error),
    /// Nobody listens, or cannot be trusted.
    #[error("cannot reach {url}: {cause}")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// Why.
        cause: String,
    },
    /// The authority refused.
    #[error("{url} refuses: {reason}")]
    Refused {
        /// Who.
        url: String,
        /// Why.
        reason: String,
    },
}

impl CertsError {
    /// 2 usage, 1 anything else.
    pub(crate) fn exit_code(&self) -> u8 {
        if matches!(self, Self::Usage(_)) { 2 } else { 1 }
    }
}

/// A duration above zero, such as `15min`, `90days` or `10years`.
fn valid_for(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(length) if !length.is_zero() => Ok(length),
        Ok(_) => Err("must be above zero".into()),
        Err(error) => Err(format!("{error}; write a duration such as 15min or 90days")),
    }
}

/// Does what is asked for.
///
/// # Errors
/// See [`CertsError`].
pub(crate) async fn run(ca: Option<&Path>, args: &CertsArgs) -> Result<(), crate::Failure> {
    let now = std::time::SystemTime::now();
    let member = |role, name: &str| Identity::new(role, name).map_err(CertsError::Usage);
    match &args.action {
        Action::Init { kept, name, valid } => {
            let fingerprint = Authority::create(&kept.folder, name, now, *valid)?;
            print(&format!("made {}, SHA-256 {fingerprint}\n", kept.folder.join("ca.crt").display()))
        }
        Action::Issue { kept, role, name, names, valid, out: folder, ca_url } => {
            ca_url.as_deref().map_or(Ok(()), join::check_url)?;
            let wanted = Wanted { identity: member(*role, name)?, names: names.clone(), valid: *valid };
            let authority = Authority::load(&kept.folder)?;
            let key = rcgen::KeyPair::generate().map_err(CertsError::Making)?;
            let certificate = authority.certify(&wanted, &key, now)?;
            authority.ledger(now)?.enter(&certificate)?;
            let url = ca_url.as_deref();
            files::write_member(folder, &authority.believed()?, &certificate, &key.serialize_pem(), url)?;
            let expires = files::expiry(&certificate);
            print(&format!("{} in {}, until {expires}\n", wanted.identity, folder.display()))
        }
        Action::Revoke { kept, role, name } => {
            let (identity, authority) = (member(*role, name)?, Authority::load(&kept.folder)?);
            let mut ledger = authority.ledger(now)?;
            let count = ledger.revoke(&identity, now)?;
            authority.publish(&ledger, now)?;
            let list = kept.folder.join("ca.crt");
            print(&format!(
                "revoked {count} certificates of {identity}; a member refuses them when it has {} as its ca.crt: `certs renew` brings it\n",
                list.display()
            ))
        }
        Action::Ticket { kept, host, ca_url, names, ttl, valid } => {
            let identity = member(Role::Collector, host)?;
            let wanted = Wanted { identity, names: names.clone(), valid: *valid };
            let authority = Authority::load(&kept.folder)?;
            print(&ticket::give(&authority, &kept.folder, ca_url, &wanted, now, *ttl)?)
        }
        Action::Serve { kept, listen, names, kubernetes } => {
            let authority = Authority::load(&kept.folder)?;
            let kubernetes = kubernetes::Kubernetes::of(kubernetes)?;
            serve::run(authority, kept.folder.clone(), kubernetes, *listen, names).await
        }
        Action::Join { ticket: Some(ticket), out: folder, .. } => {
            print(&join::by_ticket(ticket, folder).await?)
        }
        Action::Join { kubernetes_token, ca_url, out: folder, every, .. } => {
            let (Some(token), Some(url), Some(ca)) = (kubernetes_token, ca_url, ca) else {
                let both = "give a ticket, or --kubernetes-token with --ca-url and --ca";
                return Err(CertsError::Usage(both.into()).into());
            };
            join::check_url(url)?;
            let join = || join::by_token(token, url, ca, folder);
            match every {
                None => print(&join().await?),
                Some(every) => join::again_and_again(*every, folder, join).await,
            }
        }
        Action::Renew { ca_url, out: folder, every } => {
            ca_url.as_deref().map_or(Ok(()), join::check_url)?;
            let renew = || join::renew(ca_url.as_deref(), folder);
            match every {
                None => print(&renew().await?),
                Some(every) => join::again_and_again(*every, folder, renew).await,
            }
        }
    }
}
