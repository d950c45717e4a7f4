//! `FleetService`: the live state over gRPC.

use memharvest_proto::gateway::v1 as wire;
use memharvest_proto::gateway::v1::fleet_service_server::FleetService;
use memharvest_proto::predictor::v1 as predictor;
use memharvest_services::rpc_error::invalid_field;
use tonic::{Request, Response, Status};

use super::watch_fleet::{self, Events, Wanted};
use super::{session, vm_list};
use crate::access::Access;
use crate::live::HostView;
use crate::rest::App;
use crate::rest::paging::slice_after;
use crate::rest::problem::FieldError;
use crate::rest::query::Page;

/// Serves the live state.
#[derive(Clone, Debug)]
pub(crate) struct FleetApi {
    app: App,
    access: Access,
}

impl FleetApi {
    pub(crate) fn new(app: &App, access: &Access) -> Self {
        Self { app: app.clone(), access: access.clone() }
    }
}

#[tonic::async_trait]
impl FleetService for FleetApi {
    async fn get_fleet(
        &self,
        _request: Request<wire::GetFleetRequest>,
    ) -> Result<Response<wire::GetFleetResponse>, Status> {
        let fleet = Some(self.app.live.snapshot().fleet.clone());
        Ok(Response::new(wire::GetFleetResponse { fleet }))
    }

    async fn list_hosts(
        &self,
        request: Request<wire::ListHostsRequest>,
    ) -> Result<Response<wire::ListHostsResponse>, Status> {
        let request = request.into_inner();
        let page = Page::of_wire(request.page_size, request.page_token)?;
        let fits = |view: &HostView| {
            (request.state == 0 || view.host.state == request.state)
                && request.labels.iter().all(|(name, value)| view.host.labels.get(name) == Some(value))
        };
        let snapshot = self.app.live.snapshot();
        let (hosts, next_page_token) =
            slice_after(&snapshot.hosts, |view| &view.host.host_id, |view| fits(view), &page)
                .map_err(refused)?;
        let hosts = hosts.into_iter().map(|view| view.host.clone()).collect();
        Ok(Response::new(wire::ListHostsResponse { hosts, next_page_token }))
    }

    async fn get_host(
        &self,
        request: Request<wire::GetHostRequest>,
    ) -> Result<Response<wire::GetHostResponse>, Status> {
        let id = request.into_inner().host_id;
        let snapshot = self.app.live.snapshot();
        let view = snapshot.host(&id).ok_or_else(|| Status::not_found(format!("there is no host `{id}`")))?;
        Ok(Response::new(wire::GetHostResponse { host: Some(view.host.clone()) }))
    }

    async fn list_vms(
        &self,
        request: Request<wire::ListVmsRequest>,
    ) -> Result<Response<wire::ListVmsResponse>, Status> {
        let request = request.into_inner();
        let page = Page::of_wire(request.page_size, request.page_token.clone())?;
        vm_list::list(&self.app.live.snapshot(), &request, &page).map(Response::new)
    }

    async fn get_vm(
        &self,
        request: Request<wire::GetVmRequest>,
    ) -> Result<Response<wire::GetVmResponse>, Status> {
        let id = request.into_inner().vm_id;
        let snapshot = self.app.live.snapshot();
        let vm = snapshot.vm(&id).ok_or_else(|| no_vm(&id))?;
        Ok(Response::new(wire::GetVmResponse { vm: Some(vm.as_ref().clone()) }))
    }

    async fn explain_vm(
        &self,
        request: Request<wire::ExplainVmRequest>,
    ) -> Result<Response<wire::ExplainVmResponse>, Status> {
        let request = request.into_inner();
        let snapshot = self.app.live.snapshot();
        let vm = snapshot.vm(&request.vm_id).ok_or_else(|| no_vm(&request.vm_id))?;
        let place = snapshot.predictor_of(vm);
        let mut predictor = place.and_then(|place| self.app.upstream.predictor(place)).ok_or_else(|| {
            Status::unavailable(format!("no predictor has machine `{}` now", request.vm_id))
        })?;
        let question = predictor::ExplainVmRequest { vm_id: request.vm_id, signal: request.signal };
        let waterfall = predictor.explain_vm(question).await?.into_inner().waterfall;
        Ok(Response::new(wire::ExplainVmResponse { waterfall }))
    }

    type WatchFleetStream = Events;

    async fn watch_fleet(
        &self,
        request: Request<wire::WatchFleetRequest>,
    ) -> Result<Response<Events>, Status> {
        Ok(Response::new(watch_fleet::events(&self.app.live, Wanted::of(request.into_inner()))))
    }

    async fn get_session(
        &self,
        request: Request<wire::GetSessionRequest>,
    ) -> Result<Response<wire::GetSessionResponse>, Status> {
        let shown = request.metadata().contains_key("authorization");
        let clock = self.app.live.clock();
        Ok(Response::new(session::of(&self.access, request.extensions(), shown, &clock).await))
    }
}

impl Page {
    /// The page that a message asks for.
    fn of_wire(size: i32, token: String) -> Result<Self, Status> {
        let size = usize::try_from(size)
            .map_err(|_| invalid_field("page_size", "must be from 0 to 1000; 0 means 100"))?;
        Ok(Self::new(size, token))
    }
}

fn refused(error: FieldError) -> Status {
    invalid_field(error.field, error.message)
}

fn no_vm(id: &str) -> Status {
    Status::not_found(format!("there is no machine `{id}`"))
}
