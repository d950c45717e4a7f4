//! Pods that join: the API server says which node a service account's token comes from, and the pod gets the certificate of
//! that node's collector.
//!
//! The token is bound to the pod, and the node's name is in it (`authentication.kubernetes.io/node-name`, Kubernetes 1.30 and later).

use std::path::{Path, PathBuf};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use memharvest_services::tls::identity::{Identity, Role};
use serde_json::{Value, json};

use super::authority::Wanted;
use super::{CertsError, files};
use crate::client::root_cause;
use crate::https::{HttpsClient, authorities, client_of};

/// Whom a pod's token must be meant for.
pub(super) const AUDIENCE: &str = "memharvest-certs";
const NODE: &str = "authentication.kubernetes.io/node-name";
const LONGEST_ANSWER: usize = 1024 * 1024;

/// The API server, and whose pods are believed.
#[derive(Debug, clap::Args)]
pub(super) struct KubernetesArgs {
    /// Give pods of this service account, NAMESPACE:NAME, the certificate of their node's collector
    #[arg(long = "kubernetes-account", value_name = "NAMESPACE:NAME")]
    account: Option<String>,
    /// The API server
    #[arg(
        long = "kubernetes-api",
        value_name = "URL",
        requires = "account",
        default_value = "https://kubernetes.default.svc"
    )]
    api: String,
    /// Folder of the token that is shown to it, and of its authority: token and ca.crt
    #[arg(
        long = "kubernetes-credentials",
        value_name = "DIR",
        requires = "account",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    credentials: PathBuf,
    /// How long the certificates of pods hold
    #[arg(long = "kubernetes-valid", value_name = "DURATION", requires = "account", default_value = "1day", value_parser = super::valid_for)]
    valid: std::time::Duration,
}

/// Asks the API server about tokens.
#[derive(Debug)]
pub(super) struct Kubernetes {
    client: HttpsClient,
    api: String,
    credentials: PathBuf,
    /// As the API server writes it: `system:serviceaccount:NAMESPACE:NAME`.
    account: String,
    valid: std::time::Duration,
}

impl Kubernetes {
    /// `None`: pods are not known here.
    pub(super) fn of(args: &KubernetesArgs) -> Result<Option<Self>, CertsError> {
        let Some(account) = &args.account else { return Ok(None) };
        let is_account = account
            .split_once(':')
            .is_some_and(|(space, name)| !space.is_empty() && !name.is_empty() && !name.contains(':'));
        if !is_account {
            return Err(CertsError::Usage("--kubernetes-account: write it as NAMESPACE:NAME".into()));
        }
        let ca = args.credentials.join("ca.crt");
        let unfit = |what: String| CertsError::Unfit { path: ca.clone(), what };
        let roots = authorities(&files::read(&ca)?).map_err(unfit)?;
        Ok(Some(Self {
            client: client_of(roots, None).map_err(unfit)?,
            api: args.api.trim_end_matches('/').to_owned(),
            credentials: args.credentials.clone(),
            account: format!("system:serviceaccount:{account}"),
            valid: args.valid,
        }))
    }

    /// What a pod's token stands for.
    pub(super) async fn take(&self, token: &str) -> Result<Wanted, String> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token, "audiences": [AUDIENCE] },
        });
        // It is replaced under way.
        let own = own_token(&self.credentials)?;
        let request = Request::post(format!("{}/apis/authentication.k8s.io/v1/tokenreviews", self.api))
            .header(AUTHORIZATION, format!("Bearer {own}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(review.to_string())))
            .map_err(|error| error.to_string())?;
        let away = |cause: String| format!("the API server at {} does not tell: {cause}", self.api);
        let answer = self.client.request(request).await.map_err(|error| away(root_cause(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| away(root_cause(&*error)))?.to_bytes();
        if ![StatusCode::OK, StatusCode::CREATED].contains(&status) {
            return Err(away(format!("{status}")));
        }
        let review: Value = serde_json::from_slice(&body).map_err(|error| away(error.to_string()))?;
        let node = self.node(&review["status"])?;
        let identity = Identity::new(Role::Collector, &node)?;
        Ok(Wanted { identity, names: Vec::new(), valid: self.valid })
    }

    /// The node that a review tells of.
    fn node(&self, status: &Value) -> Result<String, String> {
        let meant = status["audiences"].as_array().is_some_and(|all| all.iter().any(|one| one == AUDIENCE));
        if status["authenticated"] != true || !meant {
            return Err(format!("the API server does not know the token as one for {AUDIENCE}"));
        }
        let user = &status["user"];
        if user["username"] != *self.account {
            return Err(format!("the token is of {}, not of {}", user["username"], self.account));
        }
        match user["extra"][NODE].as_array().map(Vec::as_slice) {
            Some([Value::String(node)]) => Ok(node.clone()),
            _ => Err(format!(
                "the token does not say which node its pod is on ({NODE}); this takes Kubernetes 1.30 or later"
            )),
        }
    }
}

fn own_token(credentials: &Path) -> Result<String, String> {
    let file = credentials.join("token");
    let token = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(token.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;

    /// An API server that knows one pod, and who may ask.
    async fn review(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let asked: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        let allowed = head.headers[AUTHORIZATION] == "Bearer own"
            && head.uri.path() == "/apis/authentication.k8s.io/v1/tokenreviews"
            && asked["spec"]["audiences"] == json!([AUDIENCE]);
        let user = |name: &str, extra: Value| {
            json!({"status": {"authenticated": true, "audiences": [AUDIENCE],
                "user": {"username": format!("system:serviceaccount:{name}"), "extra": extra}}})
        };
        let on_node = json!({ NODE: ["node-7"] });
        let answer = match asked["spec"]["token"].as_str().unwrap() {
            "pod" => user("mesh:collector", on_node),
            "other" => user("mesh:other", on_node),
            "old" => user("mesh:collector", json!({})),
            _ => json!({"status": {"authenticated": false, "error": "unknown"}}),
        };
        let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
        *response.status_mut() = if allowed { StatusCode::CREATED } else { StatusCode::FORBIDDEN };
        Ok(response)
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the server ends with the test's runtime")]
    async fn a_pod_gets_what_its_node_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(socket), service_fn(review)));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let now = std::time::SystemTime::now();
        let day = std::time::Duration::from_hours(24);
        super::super::authority::Authority::create(folder.path(), "cluster", now, day).unwrap();
        let of = |account: &str| {
            Kubernetes::of(&KubernetesArgs {
                account: Some(account.into()),
                api: api.clone(),
                credentials: folder.path().to_owned(),
                valid: day,
            })
        };
        let kubernetes = of("mesh:collector").unwrap().unwrap();
        assert!(kubernetes.take("pod").await.unwrap_err().contains("token: "), "no token of its own yet");
        std::fs::write(folder.path().join("token"), "own\n").unwrap();
        let wanted = kubernetes.take("pod").await.unwrap();
        assert_eq!(wanted.identity.to_string(), "memharvest://collector/node-7");
        assert_eq!((wanted.names.len(), wanted.valid), (0, day));
        for (token, why) in [("other", "mesh:other"), ("old", "1.30"), ("stranger", "does not know")] {
            let refused = kubernetes.take(token).await.unwrap_err();
            assert!(refused.contains(why), "{token}: {refused}");
        }
        std::fs::write(folder.path().join("token"), "stolen").unwrap();
        assert!(kubernetes.take("pod").await.unwrap_err().contains("403"));
        for wrong in ["mesh", ":a", "a:", "a:b:c"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
