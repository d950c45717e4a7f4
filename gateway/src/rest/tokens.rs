//! `/tokens`: static secrets of callers.

use axum::Json;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use memharvest_proto::registry::v1 as wire;
use memharvest_services::proto_time::duration_to_proto;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::author::author_of;
use super::body::JsonBody;
use super::problem::Problem;
use super::query::{Page, Query};
use super::words::{Role, Span};
use super::{App, Problems};
use crate::wire::time;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_tokens, create_token)).routes(routes!(revoke_token))
}

/// A token without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Token {
    id: String,
    /// What it is for.
    name: String,
    /// What it allows.
    role: Option<Role>,
    created_at: Option<Timestamp>,
    /// When it ends; null: never.
    expires_at: Option<Timestamp>,
    /// When it was last used; null: never.
    last_used_at: Option<Timestamp>,
    /// When it was revoked; null: it was not.
    revoked_at: Option<Timestamp>,
}

impl From<wire::Token> for Token {
    fn from(token: wire::Token) -> Self {
        Self {
            id: token.token_id,
            name: token.name,
            role: Role::of(token.role),
            created_at: time(token.created_at.as_ref()),
            expires_at: time(token.expires_at.as_ref()),
            last_used_at: time(token.last_used_at.as_ref()),
            revoked_at: time(token.revoked_at.as_ref()),
        }
    }
}

/// A new token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewToken {
    #[serde(flatten)]
    token: Token,
    /// Its secret, shown this once.
    secret: String,
}

/// A page of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenList {
    /// The tokens, newest first.
    tokens: Vec<Token>,
    /// Empty: this was the last page.
    next_page_token: String,
}

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRequest {
    /// What it is for.
    name: String,
    /// What it allows.
    role: Role,
    /// How long it lives; absent: for ever.
    ttl: Option<Span>,
    /// Who makes it.
    author: Option<String>,
    /// Why.
    reason: Option<String>,
}

/// Tokens, without their secrets
#[utoipa::path(get, path = "/tokens", tag = "tokens", params(Page), responses((status = 200, description = "As asked", body = TokenList), Problems))]
async fn list_tokens(State(app): State<App>, mut query: Query) -> Result<Json<TokenList>, Problem> {
    let page = query.page();
    query.finish()?;
    let request = wire::ListTokensRequest { page_size: page.wire_size(), page_token: page.token };
    let found = app.upstream.tokens().list_tokens(request).await?.into_inner();
    let tokens = found.tokens.into_iter().map(Token::from).collect();
    Ok(Json(TokenList { tokens, next_page_token: found.next_page_token }))
}

/// Makes a token; its secret is shown this once
#[utoipa::path(post, path = "/tokens", tag = "tokens", request_body = TokenRequest,
    params(("x-memharvest-author" = Option<String>, Header, description = "Who makes it, unless the body says")),
    responses((status = 201, description = "It is made", body = NewToken), Problems))]
async fn create_token(
    State(app): State<App>,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody<TokenRequest>,
) -> Result<(StatusCode, Json<NewToken>), Problem> {
    query.finish()?;
    let request = wire::CreateTokenRequest {
        name: body.name,
        role: body.role.wire().into(),
        ttl: body.ttl.map(|Span(ttl)| duration_to_proto(ttl)),
        author: author_of(&headers, body.author)?,
        reason: body.reason.unwrap_or_default(),
    };
    let made = app.upstream.tokens().create_token(request).await?.into_inner();
    let token = made.token.ok_or_else(|| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the registry answered without a token")
    })?;
    Ok((StatusCode::CREATED, Json(NewToken { token: token.into(), secret: made.secret })))
}

/// Ends a token
#[utoipa::path(delete, path = "/tokens/{id}", tag = "tokens", 
    params(
        ("id" = String, Path, description = "Identity of the token"),
        ("reason" = Option<String>, Query, description = "Why"),
        ("x-memharvest-author" = Option<String>, Header, description = "Who asks; `anonymous` by default"),
    ),
    responses((status = 204, description = "It opens nothing any more"), Problems))]
async fn revoke_token(
    State(app): State<App>,
    Path(id): Path<String>,
    mut query: Query,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let reason = query.one("reason").unwrap_or_default();
    query.finish()?;
    let author = author_of(&headers, None)?;
    let request = wire::RevokeTokenRequest { token_id: id, author, reason };
    app.upstream.tokens().revoke_token(request).await?;
    Ok(StatusCode::NO_CONTENT)
}
