//! Tokens: made, shown once, checked, ended.

use memharvest_proto::registry::v1::{
    CreateTokenRequest, ListAuditEventsRequest, ListTokensRequest, RevokeTokenRequest, Role, Token,
    VerifyTokenRequest,
};
use tonic::{Code, Status};

use crate::records::lasting;
use crate::server::{TestRegistry, database, eventually, wrong_fields};

fn request(name: &str) -> CreateTokenRequest {
    CreateTokenRequest {
        name: name.to_owned(),
        role: Role::Operator.into(),
        ttl: None,
        author: "ann".to_owned(),
        reason: "for the scheduler".to_owned(),
    }
}

async fn create(registry: &TestRegistry, request: CreateTokenRequest) -> (Token, String) {
    let made = registry.tokens().create_token(request).await.unwrap().into_inner();
    (made.token.unwrap(), made.secret)
}

async fn verify(registry: &TestRegistry, secret: &str) -> Result<Token, Status> {
    let verified = registry.tokens().verify_token(VerifyTokenRequest { secret: secret.to_owned() }).await?;
    Ok(verified.into_inner().token.unwrap())
}

#[tokio::test]
async fn a_token_opens_until_it_is_revoked() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &["--heartbeat-interval", "50ms"]).await;
    let (token, secret) = create(&registry, request("scheduler")).await;
    assert!(secret.starts_with("mh_") && secret.len() == 3 + 64, "{secret}");
    assert_eq!((token.role(), token.expires_at, token.last_used_at), (Role::Operator, None, None));
    let known = verify(&registry, &secret).await.unwrap();
    assert_eq!((known.token_id.as_str(), known.name.as_str()), (token.token_id.as_str(), "scheduler"));
    assert!(known.last_used_at.is_some());
    for unknown in
        ["", "mh_", "password", &format!("mh_{}", "0".repeat(64)), &secret[..66], &"x".repeat(10_000)]
    {
        let refused = verify(&registry, unknown).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(unknown.is_empty() || !refused.message().contains(unknown), "a secret is never repeated");
    }
    let folder = path.parent().unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(
            !bytes.windows(secret.len()).any(|part| part == secret.as_bytes()),
            "only its hash is stored"
        );
    }

    let revoke = RevokeTokenRequest {
        token_id: token.token_id.clone(),
        author: "bob".to_owned(),
        reason: "it leaked".to_owned(),
    };
    let revoked = registry.tokens().revoke_token(revoke).await.unwrap().into_inner().token.unwrap();
    assert!(revoked.revoked_at.is_some());
    let refused = verify(&registry, &secret).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "the token is revoked"));
    let audit = ListAuditEventsRequest { action: "token".to_owned(), ..Default::default() };
    let events = registry.audit().list_audit_events(audit).await.unwrap().into_inner().events;
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.action.as_str(), event.author.as_str(), event.reason.as_str()))
        .collect();
    let expected = [("token.revoke", "bob", "it leaked"), ("token.create", "ann", "for the scheduler")];
    assert_eq!(told, expected);
    assert!(!format!("{events:?}").contains(&secret));
    registry.stop().await;
}

#[tokio::test]
async fn a_token_runs_out_and_its_last_use_is_written_down() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let (short, secret) = create(&registry, CreateTokenRequest { ttl: lasting(1), ..request("short") }).await;
    verify(&registry, &secret).await.unwrap();
    let used = verify(&registry, &secret).await.unwrap().last_used_at;
    eventually("its end", async || verify(&registry, &secret).await.err()).await;
    registry.stop().await;

    let registry = TestRegistry::start(&path, &[]).await;
    create(&registry, request("second")).await;
    let mut list = ListTokensRequest { page_size: 1, ..Default::default() };
    let page = registry.tokens().list_tokens(list.clone()).await.unwrap().into_inner();
    assert_eq!(page.tokens[0].name, "second", "newest first");
    list.page_token = page.next_page_token;
    let page = registry.tokens().list_tokens(list).await.unwrap().into_inner();
    assert_eq!(
        (page.tokens[0].token_id.as_str(), page.next_page_token.as_str()),
        (short.token_id.as_str(), "")
    );
    let seconds = |at: Option<prost_types::Timestamp>| at.expect("it was used").seconds;
    assert!(seconds(page.tokens[0].last_used_at) >= seconds(used), "written down when the process stopped");
    registry.stop().await;
}

#[tokio::test]
async fn every_field_that_is_wrong_is_named() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.tokens();
    for (bad, field) in [
        (request(""), "name"),
        (request(&"x".repeat(129)), "name"),
        (request("a\nb"), "name"),
        (CreateTokenRequest { role: 0, ..request("a") }, "role"),
        (CreateTokenRequest { role: 9, ..request("a") }, "role"),
        (CreateTokenRequest { ttl: lasting(0), ..request("a") }, "ttl"),
        (CreateTokenRequest { ttl: lasting(3651 * 86_400), ..request("a") }, "ttl"),
        (CreateTokenRequest { author: "x".repeat(1000), ..request("a") }, "author"),
        (CreateTokenRequest { reason: "x".repeat(5000), ..request("a") }, "reason"),
    ] {
        assert_eq!(wrong_fields(&client.create_token(bad).await.unwrap_err()), [field]);
    }
    let revoke = |id: &str| RevokeTokenRequest { token_id: id.to_owned(), ..Default::default() };
    assert_eq!(wrong_fields(&client.revoke_token(revoke("")).await.unwrap_err()), ["token_id"]);
    assert_eq!(client.revoke_token(revoke("none")).await.unwrap_err().code(), Code::NotFound);
    let list = ListTokensRequest { page_size: -1, ..Default::default() };
    assert_eq!(wrong_fields(&client.list_tokens(list).await.unwrap_err()), ["page_size"]);
    let all = client.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner();
    assert!(all.tokens.is_empty(), "nothing was written");
    drop(client);
    registry.stop().await;
}
