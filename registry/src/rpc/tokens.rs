//! `TokenService`: static secrets of callers.

use std::sync::Arc;

use memharvest_proto::registry::v1::token_service_server::TokenService;
use memharvest_proto::registry::v1::{
    CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse, RevokeTokenRequest,
    RevokeTokenResponse, Role, VerifyTokenRequest, VerifyTokenResponse,
};
use memharvest_services::rpc_error::ErrorCode;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::now_ns;
use crate::check::Check;
use crate::page::Page;
use crate::store::{NewToken, Store};
use crate::token::{self, LONGEST_TTL_S, LastUse};

/// Longest name and id of a token, in bytes.
const MAX_NAME: usize = 128;

/// Longest secret that is looked at, in bytes.
const MAX_SECRET: usize = 512;

/// Serves tokens from a store.
#[derive(Debug)]
pub struct TokenRpc<S> {
    store: Arc<S>,
    used: LastUse,
}

impl<S: Store> TokenRpc<S> {
    /// Serves the tokens of `store`; what is used is noted in `used`, which somebody else writes down.
    pub fn new(store: Arc<S>, used: LastUse) -> Self {
        Self { store, used }
    }
}

fn refused(why: &str) -> Status {
    ErrorCode::Unauthenticated.status(why)
}

#[tonic::async_trait]
impl<S: Store> TokenService for TokenRpc<S> {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.that(!request.name.is_empty(), "name", "must be given: what it is for");
        check.text("name", &request.name, MAX_NAME);
        check.that(!request.name.chars().any(char::is_control), "name", "must have no control characters");
        check.that(request.role() != Role::Unspecified, "role", "must be viewer, operator or admin");
        let ttl_ns = check.duration_or_none("ttl", request.ttl.as_ref(), 1, LONGEST_TTL_S);
        let change = check.change(&request.author, &request.reason, now_ns());
        check.done()?;
        let secret = token::new_secret();
        let new = NewToken {
            token_id: Uuid::now_v7().to_string(),
            name: request.name.clone(),
            role: request.role(),
            secret_hash: token::hash(&secret),
            expires_ns: ttl_ns.map(|ttl| change.at_ns.saturating_add(ttl)),
        };
        let token = self.store.create_token(&new, &change).await?;
        Ok(Response::new(CreateTokenResponse { token: Some(token), secret }))
    }

    async fn list_tokens(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        let request = request.into_inner();
        let page = Page::of("tokens".to_owned(), request.page_size, &request.page_token)?;
        let before = page.cursor_as()?.unwrap_or(u64::MAX);
        let mut tokens = self.store.tokens(before, page.limit()).await?;
        let next_page_token = page.cut(&mut tokens, |(number, _)| number.to_string());
        let mut tokens: Vec<_> = tokens.into_iter().map(|(_, token)| token).collect();
        for token in &mut tokens {
            self.used.apply(token);
        }
        Ok(Response::new(ListTokensResponse { tokens, next_page_token }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.that(!request.token_id.is_empty(), "token_id", "must be given");
        check.text("token_id", &request.token_id, MAX_NAME);
        let change = check.change(&request.author, &request.reason, now_ns());
        check.done()?;
        let mut token = self.store.revoke_token(&request.token_id, &change).await?;
        self.used.apply(&mut token);
        Ok(Response::new(RevokeTokenResponse { token: Some(token) }))
    }

    async fn verify_token(
        &self,
        request: Request<VerifyTokenRequest>,
    ) -> Result<Response<VerifyTokenResponse>, Status> {
        let secret = request.into_inner().secret;
        if secret.len() > MAX_SECRET || !secret.starts_with(token::PREFIX) {
            return Err(refused("that is no token of memharvest"));
        }
        let now = now_ns();
        let found = self.store.token_by_hash(&token::hash(&secret)).await?;
        let mut token = found.ok_or_else(|| refused("the token is not known"))?;
        if let Some(flaw) = token::flaw(&token, now) {
            return Err(refused(flaw));
        }
        self.used.note(&token.token_id, now);
        self.used.apply(&mut token);
        Ok(Response::new(VerifyTokenResponse { token: Some(token) }))
    }
}
