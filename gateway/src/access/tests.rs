use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorSet;

use super::*;
use crate::rest::openapi_json;

fn rest_of_rules() -> Vec<String> {
    let routes = policy::RULES.iter().flat_map(|rule| rule.rest);
    routes.map(|(method, path)| format!("{method} {path}")).collect()
}

/// Every operation of the API is in the table once, and the table names none that is not there.
#[test]
fn the_table_covers_every_route() {
    let document: serde_json::Value = serde_json::from_str(&openapi_json()).unwrap();
    let mut expected = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let methods = operations.as_object().unwrap().keys();
        expected.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let listed = rest_of_rules();
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len(), "a route is listed twice");
    let api: BTreeSet<String> = listed.into_iter().filter(|route| route.contains(" /api/")).collect();
    assert_eq!(api, expected);
}

/// Every method that the gateway does not refuse to everybody is in the table.
#[test]
fn the_table_covers_every_method() {
    let set = FileDescriptorSet::decode(memharvest_proto::DESCRIPTORS).unwrap();
    let mut served = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                if path.starts_with("/memharvest.gateway.v1.") || crate::grpc::is_handed_on(&path) {
                    served.insert(path);
                }
            }
        }
    }
    let listed: Vec<&str> = policy::RULES.iter().flat_map(|rule| rule.grpc).copied().collect();
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len(), "a method is listed twice");
    let ours: BTreeSet<String> =
        listed.into_iter().filter(|path| path.starts_with("/memharvest.")).map(str::to_owned).collect();
    assert_eq!(ours, served);
}

#[test]
fn higher_roles_include_the_lower_and_nobody_may_what_is_not_listed() {
    let needs = policy::of_route(&Method::PUT, "/api/v1/boundaries/{scope}").unwrap();
    let allowed =
        [None, Some(Role::Viewer), Some(Role::Operator), Some(Role::Admin)].map(|role| needs.met_by(role));
    assert_eq!(allowed, [false, false, true, true]);
    assert!(!needs.met_by(Some(Role::Unspecified)));
    assert_eq!(policy::of_route(&Method::HEAD, "/metrics"), policy::of_route(&Method::GET, "/metrics"));
    assert_eq!(policy::of_route(&Method::POST, "/metrics"), None);
    assert_eq!(unlisted(&Method::GET, "/new"), Needs::AtLeast(Role::Admin));
    assert_eq!(unlisted(&Method::POST, "/metrics"), Needs::AtLeast(Role::Viewer));
    assert_eq!(policy::of_method("/grpc.health.v1.Health/Check"), Some(Needs::Nobody));
    assert_eq!(policy::of_method("/memharvest.registry.v1.TokenService/VerifyToken"), None);
}

#[test]
fn one_subscriber_is_one_client() {
    let of = |text: &str| network(text.parse().unwrap());
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
}
