//! Who may call what between the services: the only table that says so. What it does not list is nobody's.

use crate::tls::identity::Role;

/// Services that every member may ask.
const OPEN: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

const EVERY_AGENT: &[Role] = &[Role::Collector, Role::Predictor, Role::Gateway];
const COLLECTOR: &[Role] = &[Role::Collector];
const PREDICTOR: &[Role] = &[Role::Predictor];
const GATEWAY: &[Role] = &[Role::Gateway];
const READERS: &[Role] = &[Role::Predictor, Role::Gateway];

/// Roles by method. Whose agent or host a message speaks of is checked where it is read, by [`crate::caller`].
const RULES: &[(&str, &[Role])] = &[
    ("/memharvest.collector.v1.CollectorService/GetReading", GATEWAY),
    ("/memharvest.collector.v1.CollectorService/WatchReadings", GATEWAY),
    ("/memharvest.collector.v1.CollectorService/Diagnose", GATEWAY),
    ("/memharvest.predictor.v1.PredictorService/Observe", COLLECTOR),
    ("/memharvest.predictor.v1.PredictorService/ListHosts", GATEWAY),
    ("/memharvest.predictor.v1.PredictorService/ListVms", GATEWAY),
    ("/memharvest.predictor.v1.PredictorService/ExplainVm", GATEWAY),
    ("/memharvest.predictor.v1.PredictorService/WatchForecasts", GATEWAY),
    ("/memharvest.predictor.v1.PredictorService/SimulateBoundary", GATEWAY),
    ("/memharvest.registry.v1.AgentService/RegisterAgent", EVERY_AGENT),
    ("/memharvest.registry.v1.AgentService/Heartbeat", EVERY_AGENT),
    ("/memharvest.registry.v1.AgentService/GetAgent", READERS),
    ("/memharvest.registry.v1.AgentService/ListAgents", READERS),
    ("/memharvest.registry.v1.AgentService/UpdateAgent", GATEWAY),
    ("/memharvest.registry.v1.AgentService/DecommissionAgent", GATEWAY),
    ("/memharvest.registry.v1.AuditService/ListAuditEvents", GATEWAY),
    ("/memharvest.registry.v1.BoundaryService/GetBoundary", READERS),
    ("/memharvest.registry.v1.BoundaryService/ListBoundaries", READERS),
    ("/memharvest.registry.v1.BoundaryService/SetBoundary", GATEWAY),
    ("/memharvest.registry.v1.BoundaryService/DeleteBoundary", GATEWAY),
    ("/memharvest.registry.v1.BoundaryService/GetEffectiveBoundary", READERS),
    ("/memharvest.registry.v1.BoundaryService/ListBoundaryVersions", READERS),
    ("/memharvest.registry.v1.BoundaryService/WatchBoundaries", READERS),
    ("/memharvest.registry.v1.HarvestService/RecordHarvest", PREDICTOR),
    ("/memharvest.registry.v1.HarvestService/QueryHistory", READERS),
    ("/memharvest.registry.v1.HarvestService/StreamHistory", READERS),
    ("/memharvest.registry.v1.HarvestService/ListLatest", READERS),
    ("/memharvest.registry.v1.LeaseService/ReserveMemory", GATEWAY),
    ("/memharvest.registry.v1.LeaseService/RenewLease", GATEWAY),
    ("/memharvest.registry.v1.LeaseService/ReleaseLease", GATEWAY),
    ("/memharvest.registry.v1.LeaseService/ListLeases", READERS),
    ("/memharvest.registry.v1.LeaseService/WatchLeases", READERS),
    ("/memharvest.registry.v1.ModelService/PutSnapshots", PREDICTOR),
    ("/memharvest.registry.v1.ModelService/GetSnapshots", PREDICTOR),
    ("/memharvest.registry.v1.TokenService/CreateToken", GATEWAY),
    ("/memharvest.registry.v1.TokenService/ListTokens", GATEWAY),
    ("/memharvest.registry.v1.TokenService/RevokeToken", GATEWAY),
    ("/memharvest.registry.v1.TokenService/VerifyToken", GATEWAY),
    ("/memharvest.registry.v1.ViolationService/RecordViolations", PREDICTOR),
    ("/memharvest.registry.v1.ViolationService/ListViolations", READERS),
    ("/memharvest.registry.v1.ViolationService/GetViolation", READERS),
    ("/memharvest.registry.v1.ViolationService/AcknowledgeViolation", GATEWAY),
    ("/memharvest.registry.v1.ViolationService/ExplainViolation", GATEWAY),
    ("/memharvest.registry.v1.ViolationService/WatchViolations", READERS),
    ("/memharvest.registry.v1.ViolationService/ListErrorBudgets", READERS),
];

/// Whether this role may call the method of this path.
pub(crate) fn allows(role: Role, path: &str) -> bool {
    OPEN.iter().any(|service| path.starts_with(service))
        || RULES.iter().any(|(method, roles)| *method == path && roles.contains(&role))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// No method of the mesh is forgotten, and the table names none that does not exist.
    #[test]
    fn the_table_covers_every_method_between_services() {
        let set = FileDescriptorSet::decode(memharvest_proto::DESCRIPTORS).unwrap();
        let mut methods = BTreeSet::new();
        for file in set.file.iter().filter(|file| file.package() != "memharvest.gateway.v1") {
            for service in &file.service {
                let name = format!("/{}.{}", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| format!("{name}/{}", method.name())));
            }
        }
        let known: BTreeSet<String> = RULES.iter().map(|(method, _)| (*method).to_owned()).collect();
        assert_eq!(known.len(), RULES.len(), "no method twice");
        assert_eq!(known, methods);
    }

    #[test]
    fn nobody_may_do_what_is_anothers() {
        let registry = |method: &str| format!("/memharvest.registry.v1.{method}");
        for (role, method) in [
            (Role::Collector, "HarvestService/RecordHarvest"),
            (Role::Collector, "LeaseService/ReserveMemory"),
            (Role::Collector, "BoundaryService/SetBoundary"),
            (Role::Collector, "TokenService/CreateToken"),
            (Role::Collector, "AgentService/ListAgents"),
            (Role::Predictor, "TokenService/VerifyToken"),
            (Role::Predictor, "BoundaryService/SetBoundary"),
            (Role::Gateway, "HarvestService/RecordHarvest"),
            (Role::Gateway, "ViolationService/RecordViolations"),
            (Role::Registry, "AgentService/RegisterAgent"),
        ] {
            assert!(!allows(role, &registry(method)), "{role}: {method}");
        }
        assert!(!allows(Role::Predictor, "/memharvest.predictor.v1.PredictorService/Observe"));
        assert!(allows(Role::Collector, "/memharvest.predictor.v1.PredictorService/Observe"));
        for role in Role::ALL {
            assert!(allows(role, "/grpc.health.v1.Health/Check"));
            assert!(!allows(role, "/memharvest.registry.v1.AgentService/Invented"));
        }
    }
}
