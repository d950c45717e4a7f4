//! Page tokens of every list, by the contract's descriptors: each opens the next page of its own list, and is refused by all others.

use memharvest_proto::registry::v1::{BoundaryValues, SetBoundaryRequest};
use prost::Message;
use prost_reflect::{DynamicMessage, MethodDescriptor, Value};
use tonic::Status;

use crate::every_rpc::{Nothing, call, contract, round};
use crate::server::{TestRegistry, database, wrong_fields};

/// A page of one entry; its answer.
async fn page(
    registry: &TestRegistry,
    list: &MethodDescriptor,
    token: &str,
) -> Result<DynamicMessage, Status> {
    let mut request = DynamicMessage::new(list.input());
    request.set_field_by_name("page_size", Value::I32(1));
    request.set_field_by_name("page_token", Value::String(token.to_owned()));
    if list.name() == "ListBoundaryVersions" {
        request.set_field_by_name("scope", Value::String("host:host-1".to_owned()));
    }
    let answer = call(&registry.channel, list, request.encode_to_vec()).await?;
    Ok(DynamicMessage::decode(list.output(), answer.as_slice()).unwrap())
}

#[tokio::test]
async fn a_page_token_opens_its_own_list_and_no_other() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    // Two entries in every list, one of which is decommissioned, ended or removed where it can be.
    for number in [1, 2] {
        round(&registry.channel, number, &mut Nothing).await;
        let scope = format!("host:host-{number}");
        let request =
            SetBoundaryRequest { scope, values: Some(BoundaryValues::default()), ..Default::default() };
        registry.boundaries().set_boundary(request).await.unwrap();
    }
    for id in ["a", "b"] {
        registry.agents().register_agent(crate::records::registration(id, "i")).await.unwrap();
    }
    let contract = contract();
    let paged = |method: &MethodDescriptor| method.input().get_field_by_name("page_token").is_some();
    let lists: Vec<MethodDescriptor> = contract
        .services()
        .filter(|service| service.package_name() == "memharvest.registry.v1")
        .flat_map(|service| service.methods().filter(paged).collect::<Vec<_>>())
        .collect();
    assert!(lists.len() >= 8, "{lists:?}");
    let mut tokens = Vec::new();
    for list in &lists {
        let first = page(&registry, list, "").await.unwrap();
        let token = first.get_field_by_name("next_page_token").unwrap().as_str().unwrap().to_owned();
        assert!(!token.is_empty(), "{}", list.name());
        let second = page(&registry, list, &token).await.unwrap();
        assert_ne!(first, second, "{}", list.name());
        tokens.push((list.name().to_owned(), token));
    }
    for list in &lists {
        for (of, token) in &tokens {
            if of != list.name() {
                let refused = page(&registry, list, token).await.expect_err(of);
                assert_eq!(wrong_fields(&refused), ["page_token"], "{} with a token of {of}", list.name());
            }
        }
    }
    registry.stop().await;
}
