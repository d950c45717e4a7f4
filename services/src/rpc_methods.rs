//! What the descriptors tell of methods: which exist, and which are streams.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use prost_types::FileDescriptorSet;

/// The methods of some encoded `google.protobuf.FileDescriptorSet`s, with those of health and reflection.
#[derive(Debug, Clone)]
pub struct RpcMethods(Arc<HashMap<String, RpcMethod>>);

/// One method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcMethod {
    /// Full name of its service, such as `memharvest.registry.v1.AgentService`.
    pub service: String,
    /// Its name, such as `Heartbeat`.
    pub name: String,
    /// Whether one side or both send a stream: such a call has no deadline.
    pub streaming: bool,
}

impl RpcMethods {
    /// Reads the descriptors.
    ///
    /// # Errors
    /// The bytes are no descriptor set.
    pub fn new(descriptors: &[u8]) -> Result<Self, prost::DecodeError> {
        let sets = [
            descriptors,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut methods = HashMap::new();
        for set in sets {
            for file in FileDescriptorSet::decode(set)?.file {
                let package = file.package().to_owned();
                for service in &file.service {
                    let service_name = format!("{package}.{}", service.name());
                    for method in &service.method {
                        let found = RpcMethod {
                            service: service_name.clone(),
                            name: method.name().to_owned(),
                            streaming: method.client_streaming() || method.server_streaming(),
                        };
                        methods.insert(format!("/{service_name}/{}", method.name()), found);
                    }
                }
            }
        }
        Ok(Self(Arc::new(methods)))
    }

    /// The method that a request's path names. Strangers share one entry, so that nobody can fill the metrics with
    /// names of his own.
    #[must_use]
    pub fn look_up(&self, path: &str) -> RpcMethod {
        self.0.get(path).cloned().unwrap_or_else(|| RpcMethod {
            service: "unknown".into(),
            name: "unknown".into(),
            streaming: false,
        })
    }
}
