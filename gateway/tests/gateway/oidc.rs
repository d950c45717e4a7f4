//! Tokens of an identity provider: a real key set over HTTP that changes while requests run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::Method;
use axum::routing::{get, post};
use jiff::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::http::{Answer, send, send_json};
use crate::mesh::Mesh;

/// An identity provider with one key at a time.
#[derive(Clone)]
struct Provider {
    address: String,
    published: Arc<Mutex<Value>>,
    asked: Arc<Mutex<usize>>,
}

/// A key that signs.
#[derive(Clone)]
struct Key {
    id: String,
    signs: EncodingKey,
    shown: Value,
}

impl Key {
    fn new(id: &str) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let signs = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut jwk = Jwk::from_encoding_key(&signs, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(id.into());
        Self { id: id.into(), signs, shown: serde_json::to_value(jwk).unwrap() }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &self.signs).unwrap()
    }
}

impl Provider {
    async fn start(key: &Key) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            published: Arc::default(),
            asked: Arc::default(),
        };
        provider.publish(&[key]);
        let (own, keys) = (provider.clone(), provider.clone());
        let routes = axum::Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(async move || {
                    json!({
                        "jwks_uri": format!("{}/keys", own.address),
                        "authorization_endpoint": format!("{}/authorize", own.address),
                        "token_endpoint": format!("{}/token", own.address),
                    })
                    .to_string()
                }),
            )
            .route(
                "/keys",
                get(async move || {
                    *keys.asked.lock().unwrap() += 1;
                    keys.published.lock().unwrap().to_string()
                }),
            );
        let given = key.sign(&provider.claims(&["operator"]));
        let routes = routes.route("/token", post(async move |form: String| redeem(&form, &given)));
        #[expect(clippy::disallowed_methods, reason = "ends with the test")]
        tokio::spawn(async move { axum::serve(listener, routes).await });
        provider
    }

    fn publish(&self, keys: &[&Key]) {
        let keys: Vec<&Value> = keys.iter().map(|key| &key.shown).collect();
        *self.published.lock().unwrap() = json!({ "keys": keys });
    }

    fn claims(&self, roles: &[&str]) -> Value {
        let now = Timestamp::now().as_second();
        json!({"iss": self.address, "aud": "memharvest", "sub": "ann", "exp": now + 600, "nbf": now - 10, "roles": roles})
    }

    async fn mesh(&self) -> Mesh {
        Mesh::with(1, &[&format!("--oidc-issuer={}", self.address), "--oidc-audience=memharvest"]).await
    }
}

/// The provider's answer to a code: a token for somebody else, and one for this gateway.
fn redeem(form: &str, given: &str) -> (::http::StatusCode, String) {
    let has = |pair: &str| form.split('&').any(|part| part == pair);
    if has("code=good") && has("code_verifier=v%2D1") && has("client_id=dash") && has("client_secret=s%26t") {
        return (::http::StatusCode::OK, json!({"access_token": "opaque", "id_token": given}).to_string());
    }
    (::http::StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"}).to_string())
}

#[tokio::test]
async fn a_browser_gets_a_token_for_its_code() {
    let provider = Provider::start(&Key::new("one")).await;
    let flags = ["--oidc-audience=memharvest", "--oidc-client-id=dash", "--oidc-client-secret=s&t"];
    let issuer = format!("--oidc-issuer={}", provider.address);
    let mesh = Mesh::with(1, &[&[&*issuer], &flags[..]].concat()).await;
    let redeemed = async |code: &str| {
        let body = json!({"code": code, "code_verifier": "v-1", "redirect_uri": mesh.url("/sign-in")});
        send_json(Method::POST, &mesh.url("/oidc/token"), &[], &body).await
    };
    let token = redeemed("good").await.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(fleet(&mesh, &token).await.status, 200);
    redeemed("stolen").await.problem(401);
    let closed = provider.mesh().await;
    let body = json!({"code": "good", "code_verifier": "v-1", "redirect_uri": ""});
    send_json(Method::POST, &closed.url("/oidc/token"), &[], &body).await.problem(401);
}

async fn fleet(mesh: &Mesh, token: &str) -> Answer {
    let headers = [("authorization", &*format!("Bearer {token}"))];
    send(Method::GET, &mesh.url("/api/v1/fleet"), &headers, Vec::new()).await
}

#[tokio::test]
async fn a_token_of_the_issuer_opens_what_its_role_may() {
    let key = Key::new("one");
    let provider = Provider::start(&key).await;
    let mesh = provider.mesh().await;
    assert_eq!(fleet(&mesh, &key.sign(&provider.claims(&["viewer"]))).await.status, 200);
    let put = async |roles: &[&str]| {
        let headers = [("authorization", &*format!("Bearer {}", key.sign(&provider.claims(roles))))];
        send_json(Method::PUT, &mesh.url("/api/v1/boundaries/fleet"), &headers, &json!({})).await
    };
    put(&["viewer"]).await.problem(403);
    let set = put(&["viewer", "operator"]).await;
    assert_eq!((set.status.as_u16(), set.json()["author"].as_str().unwrap()), (201, "ann"));
}

#[tokio::test]
async fn whatever_does_not_hold_is_refused() {
    let key = Key::new("one");
    let provider = Provider::start(&key).await;
    let mesh = provider.mesh().await;
    let now = Timestamp::now().as_second();
    let changed = |name: &str, value: Value| {
        let mut claims = provider.claims(&["admin"]);
        claims[name] = value;
        key.sign(&claims)
    };
    let good = key.sign(&provider.claims(&["admin"]));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let forged_payload = key.sign(&provider.claims(&["viewer", "admin"]));
    let forged_payload = forged_payload.split('.').nth(1).unwrap();
    // Signed with the public key as if it were a shared secret.
    let confused = encode(
        &Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) },
        &provider.claims(&["admin"]),
        &EncodingKey::from_secret(key.shown.to_string().as_bytes()),
    )
    .unwrap();
    for (what, token) in [
        ("expired", changed("exp", json!(now - 60))),
        ("not yet valid", changed("nbf", json!(now + 300))),
        ("without an end", changed("exp", Value::Null)),
        ("for somebody else", changed("aud", json!("other"))),
        ("of another issuer", changed("iss", json!("https://evil.example"))),
        ("with another content", format!("{header}.{forged_payload}.{signature}")),
        ("without a signature", format!("{signed}.")),
        ("signed by nobody", "eyJhbGciOiJub25lIn0.e30.".to_owned()),
        ("signed with a shared secret", confused),
        ("signed by a stranger under our key's name", Key::new("one").sign(&provider.claims(&["admin"]))),
        ("no token", "x.y.z".to_owned()),
    ] {
        assert_eq!(fleet(&mesh, &token).await.status, 401, "{what}");
    }
    fleet(&mesh, &key.sign(&provider.claims(&["gardener"]))).await.problem(403);
    assert_eq!(fleet(&mesh, &good).await.status, 200);
}

#[tokio::test]
async fn keys_rotate_while_requests_run() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let provider = Provider::start(&old).await;
    let mesh = provider.mesh().await;
    let with_old = old.sign(&provider.claims(&["viewer"]));
    assert_eq!(fleet(&mesh, &with_old).await.status, 200);
    let with_new = new.sign(&provider.claims(&["viewer"]));
    let (refused, passed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let running = async {
        loop {
            let token = if *passed.lock().unwrap() % 2 == 0 { &with_old } else { &with_new };
            let status = fleet(&mesh, token).await.status.as_u16();
            *passed.lock().unwrap() += 1;
            if status != 200 {
                refused.lock().unwrap().push(status);
            }
        }
    };
    provider.publish(&[&old, &new]);
    tokio::select! {
        () = running => {}
        () = tokio::time::sleep(Duration::from_secs(2)) => {}
    }
    assert!(refused.lock().unwrap().is_empty(), "{:?}", refused.lock().unwrap());
    assert!(*passed.lock().unwrap() > 2);
    // A flood of keys that nobody has does not become a flood of questions.
    let before = *provider.asked.lock().unwrap();
    let strangers =
        (0..6).map(|number| Key::new(&format!("stranger-{number}")).sign(&provider.claims(&["admin"])));
    let answers = futures::future::join_all(strangers.map(|token| {
        let mesh = &mesh;
        async move { fleet(mesh, &token).await.status.as_u16() }
    }));
    assert_eq!(answers.await, [401; 6]);
    assert!(
        *provider.asked.lock().unwrap() - before <= 2,
        "asked {} times",
        *provider.asked.lock().unwrap() - before
    );
}
