//! Who may do what: one table for REST and gRPC. What it does not list is nobody's.

use http::Method;
use memharvest_proto::registry::v1::Role;

/// What an action asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: probes, and what the programs tell about themselves.
    Nobody,
    /// At least this role; the higher ones include the lower.
    AtLeast(Role),
}

impl Needs {
    /// Whether a caller with this role, or without one, may.
    pub(crate) fn met_by(self, role: Option<Role>) -> bool {
        match self {
            Self::Nobody => true,
            Self::AtLeast(least) => role.is_some_and(|role| i32::from(role) >= i32::from(least)),
        }
    }
}

/// One thing that can be done, by REST, by gRPC, or by both.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) needs: Needs,
    /// Method and path of the port's routes.
    pub(crate) rest: &'static [(Method, &'static str)],
    /// Paths of gRPC methods; one that ends in `/` stands for a whole service.
    pub(crate) grpc: &'static [&'static str],
}

const VIEWER: Needs = Needs::AtLeast(Role::Viewer);
const OPERATOR: Needs = Needs::AtLeast(Role::Operator);
const ADMIN: Needs = Needs::AtLeast(Role::Admin);

macro_rules! api {
    ($path:literal) => {
        concat!("/api/v1", $path)
    };
}

macro_rules! registry {
    ($method:literal) => {
        concat!("/memharvest.registry.v1.", $method)
    };
}

macro_rules! fleet {
    ($method:literal) => {
        concat!("/memharvest.gateway.v1.FleetService/", $method)
    };
}

/// The table.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        needs: Needs::Nobody,
        rest: &[
            (Method::GET, "/"),
            (Method::GET, "/assets/{file}"),
            (Method::GET, "/favicon.svg"),
            (Method::GET, "/hosts"),
            (Method::GET, "/hosts/{host}"),
            (Method::GET, "/vms"),
            (Method::GET, "/vms/{vm}"),
            (Method::GET, "/violations"),
            (Method::GET, "/violations/{id}"),
            (Method::GET, "/boundaries"),
            (Method::GET, "/leases"),
            (Method::GET, "/agents"),
            (Method::GET, "/audit"),
            (Method::GET, "/sign-in"),
            (Method::POST, "/oidc/token"),
            (Method::GET, "/docs"),
            (Method::GET, "/docs/docs.js"),
            (Method::GET, "/docs/docs.css"),
            (Method::GET, "/openapi.json"),
            (Method::GET, "/livez"),
            (Method::GET, "/readyz"),
        ],
        grpc: &[
            fleet!("GetSession"),
            "/grpc.health.v1.Health/",
            "/grpc.reflection.v1.ServerReflection/",
            "/grpc.reflection.v1alpha.ServerReflection/",
        ],
    },
    Rule {
        needs: VIEWER,
        rest: &[(Method::GET, "/metrics"), (Method::GET, "/federate"), (Method::GET, "/sd/prometheus")],
        grpc: &[],
    },
    Rule {
        needs: VIEWER,
        rest: &[(Method::GET, api!("/fleet"))],
        grpc: &[fleet!("GetFleet"), fleet!("WatchFleet")],
    },
    Rule {
        needs: VIEWER,
        rest: &[(Method::GET, api!("/hosts")), (Method::GET, api!("/hosts/{host}"))],
        grpc: &[fleet!("ListHosts"), fleet!("GetHost")],
    },
    Rule {
        needs: VIEWER,
        rest: &[
            (Method::GET, api!("/vms")),
            (Method::GET, api!("/vms/{vm}")),
            (Method::GET, api!("/hosts/{host}/vms")),
            (Method::GET, api!("/vms/{vm}/explain")),
        ],
        grpc: &[fleet!("ListVms"), fleet!("GetVm"), fleet!("ExplainVm")],
    },
    Rule {
        needs: VIEWER,
        rest: &[(Method::GET, api!("/vms/{vm}/history")), (Method::GET, api!("/hosts/{host}/history"))],
        grpc: &[registry!("HarvestService/QueryHistory")],
    },
    Rule {
        needs: VIEWER,
        rest: &[(Method::GET, api!("/agents")), (Method::GET, api!("/hosts/{host}/diagnosis"))],
        grpc: &[registry!("AgentService/GetAgent"), registry!("AgentService/ListAgents")],
    },
    Rule {
        needs: ADMIN,
        rest: &[(Method::DELETE, api!("/hosts/{host}"))],
        grpc: &[registry!("AgentService/DecommissionAgent")],
    },
    Rule {
        needs: VIEWER,
        rest: &[
            (Method::GET, api!("/boundaries")),
            (Method::GET, api!("/boundaries/{scope}")),
            (Method::GET, api!("/boundaries/{scope}/versions")),
            (Method::GET, api!("/boundaries/{scope}/effective")),
        ],
        grpc: &[
            registry!("BoundaryService/GetBoundary"),
            registry!("BoundaryService/ListBoundaries"),
            registry!("BoundaryService/GetEffectiveBoundary"),
            registry!("BoundaryService/ListBoundaryVersions"),
            registry!("BoundaryService/WatchBoundaries"),
        ],
    },
    Rule {
        needs: OPERATOR,
        rest: &[
            (Method::PUT, api!("/boundaries/{scope}")),
            (Method::DELETE, api!("/boundaries/{scope}")),
            // Changes nothing, but replays a day of history.
            (Method::POST, api!("/boundaries/{scope}/simulate")),
        ],
        grpc: &[
            registry!("BoundaryService/SetBoundary"),
            registry!("BoundaryService/DeleteBoundary"),
            "/memharvest.predictor.v1.PredictorService/SimulateBoundary",
        ],
    },
    Rule {
        needs: VIEWER,
        rest: &[(Method::GET, api!("/violations")), (Method::GET, api!("/violations/{id}"))],
        grpc: &[
            registry!("ViolationService/ListViolations"),
            registry!("ViolationService/GetViolation"),
            registry!("ViolationService/WatchViolations"),
            registry!("ViolationService/ListErrorBudgets"),
        ],
    },
    Rule {
        needs: OPERATOR,
        rest: &[
            (Method::POST, api!("/violations/{id}/acknowledge")),
            (Method::POST, api!("/violations/{id}/explain")),
        ],
        grpc: &[
            registry!("ViolationService/AcknowledgeViolation"),
            registry!("ViolationService/ExplainViolation"),
        ],
    },
    Rule {
        needs: VIEWER,
        rest: &[(Method::GET, api!("/leases"))],
        grpc: &[registry!("LeaseService/ListLeases"), registry!("LeaseService/WatchLeases")],
    },
    Rule {
        needs: OPERATOR,
        rest: &[
            (Method::POST, api!("/leases")),
            (Method::PATCH, api!("/leases/{id}")),
            (Method::DELETE, api!("/leases/{id}")),
        ],
        grpc: &[
            registry!("LeaseService/ReserveMemory"),
            registry!("LeaseService/RenewLease"),
            registry!("LeaseService/ReleaseLease"),
        ],
    },
    Rule {
        needs: VIEWER,
        rest: &[(Method::GET, api!("/audit"))],
        grpc: &[registry!("AuditService/ListAuditEvents")],
    },
    Rule {
        needs: ADMIN,
        rest: &[
            (Method::GET, api!("/tokens")),
            (Method::POST, api!("/tokens")),
            (Method::DELETE, api!("/tokens/{id}")),
        ],
        grpc: &[
            registry!("TokenService/CreateToken"),
            registry!("TokenService/ListTokens"),
            registry!("TokenService/RevokeToken"),
        ],
    },
];

/// What a REST route asks. `HEAD` is `GET` without the answer.
pub(crate) fn of_route(method: &Method, path: &str) -> Option<Needs> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let fits = |rule: &&Rule| rule.rest.iter().any(|(known, route)| known == method && *route == path);
    RULES.iter().find(fits).map(|rule| rule.needs)
}

/// What a gRPC method asks.
pub(crate) fn of_method(path: &str) -> Option<Needs> {
    let is = |known: &&str| *known == path || (known.ends_with('/') && path.starts_with(*known));
    RULES.iter().find(|rule| rule.grpc.iter().any(is)).map(|rule| rule.needs)
}
