//! `GetSession`: what a page must know before it shows anything.

use http::Extensions;
use memharvest_proto::gateway::v1::GetSessionResponse;
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::proto_time::to_proto;

use crate::SERVICE;
use crate::access::Access;

/// The session of a call. `shown`: whether a token came with it.
pub(super) async fn of(
    access: &Access,
    extensions: &Extensions,
    shown: bool,
    clock: &MeshClock,
) -> GetSessionResponse {
    let who = access.who(extensions);
    GetSessionResponse {
        authentication_required: who.asked,
        name: who.name,
        role: who.role.into(),
        denied_reason: who.denied.filter(|_| shown).unwrap_or_default(),
        takes_tokens: access.takes_tokens(),
        open_id: access.open_id().await,
        version: SERVICE.version.to_owned(),
        mesh_time: Some(to_proto(clock.now())),
        mesh_speed: clock.factor(),
    }
}
