//! Every field of every request out of its range, one at a time, as the contract lists them: refused by its name, and nothing is written.

use prost::Message;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, MethodDescriptor, ReflectMessage as _,
    Value,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::every_rpc::{Visit, call, contract, round};
use crate::server::{TestRegistry, database};

/// Fields that are left out, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("UpdateAgent agent.kind", "not in the mask"),
    ("UpdateAgent agent.name", "not in the mask"),
    ("UpdateAgent agent.version", "not in the mask"),
    ("UpdateAgent agent.instance_id", "not in the mask"),
    ("UpdateAgent agent.address", "not in the mask"),
    ("UpdateAgent agent.admin_address", "not in the mask"),
    ("UpdateAgent agent.state", "not in the mask"),
    ("UpdateAgent agent.registered_at", "not in the mask"),
    ("UpdateAgent agent.last_seen_at", "not in the mask"),
    ("UpdateAgent agent.findings", "not in the mask"),
    ("UpdateAgent agent.duplicate_instance_id", "not in the mask"),
    ("UpdateAgent agent.capabilities", "not in the mask"),
    ("RecordViolations violations[0].acknowledged_by", "people's, not a predictor's: not read"),
    ("RecordViolations violations[0].acknowledged_at", "people's, not a predictor's: not read"),
    ("RecordViolations violations[0].note", "people's, not a predictor's: not read"),
    ("RecordViolations violations[0].explained_by", "people's, not a predictor's: not read"),
    ("RecordViolations violations[0].explained_at", "people's, not a predictor's: not read"),
    ("RecordViolations violations[0].explanation", "people's, not a predictor's: not read"),
    ("PutSnapshots snapshots[0].state", "other bytes are told by their checksum"),
    ("VerifyToken secret", "what is no secret is nobody's: UNAUTHENTICATED"),
];

/// A value of a field that must be refused.
struct Bad {
    /// As errors name it, such as `vms[0].quality`.
    path: String,
    what: &'static str,
    request: DynamicMessage,
}

/// Requests like the good one, but for one field each.
fn bad_ones(good: &DynamicMessage) -> Vec<Bad> {
    let mut found = Vec::new();
    spoil(good, &mut |path, what, request| found.push(Bad { path, what, request }));
    found
}

fn spoil(message: &DynamicMessage, tell: &mut dyn FnMut(String, &'static str, DynamicMessage)) {
    for field in message.descriptor().fields() {
        let name = field.name().to_owned();
        for (what, value) in bad_values(&field) {
            let mut request = message.clone();
            request.set_field(&field, value);
            tell(name.clone(), what, request);
        }
        if !message.has_field(&field) {
            continue;
        }
        let value = message.get_field(&field).into_owned();
        // Within messages likewise; of a list, within its first.
        match value {
            Value::Message(inner) if !is_well_known(&inner.descriptor()) => {
                spoil(&inner, &mut |path, what, changed| {
                    let mut request = message.clone();
                    request.set_field(&field, Value::Message(changed));
                    tell(format!("{name}.{path}"), what, request);
                });
            }
            Value::List(list) => {
                if let Some(Value::Message(inner)) = list.first() {
                    spoil(inner, &mut |path, what, changed| {
                        let mut list = list.clone();
                        list[0] = Value::Message(changed);
                        let mut request = message.clone();
                        request.set_field(&field, Value::List(list));
                        tell(format!("{name}[0].{path}"), what, request);
                    });
                }
            }
            _ => {}
        }
    }
}

fn is_well_known(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

/// Values that a field of this kind can never take.
fn bad_values(field: &FieldDescriptor) -> Vec<(&'static str, Value)> {
    if field.is_map() {
        let map = |key: &str, value: &str| {
            Value::Map([(MapKey::String(key.into()), Value::String(value.into()))].into())
        };
        return vec![("a key with NUL", map("a\0", "b")), ("a value with NUL", map("a", "b\0"))];
    }
    if field.is_list() {
        let element = match field.kind() {
            Kind::Message(message) => Value::Message(DynamicMessage::new(message)),
            Kind::Enum(_) => return vec![("an unknown value", Value::List(vec![Value::EnumNumber(99)]))],
            _ => return vec![("an element with NUL", Value::List(vec![Value::String("a\0".into())]))],
        };
        return vec![("an empty element", Value::List(vec![element]))];
    }
    match field.kind() {
        Kind::String => {
            vec![("NUL", Value::String("a\0b".into())), ("a megabyte", Value::String("x".repeat(1 << 20)))]
        }
        Kind::Bytes => vec![("other bytes", Value::Bytes(vec![1, 2, 3].into()))],
        Kind::Enum(_) => {
            vec![("an unknown value", Value::EnumNumber(99)), ("below 0", Value::EnumNumber(-1))]
        }
        Kind::Int32 => vec![("below 0", Value::I32(-1))],
        Kind::Uint32 => vec![("the largest", Value::U32(u32::MAX))],
        Kind::Uint64 => vec![("the largest", Value::U64(u64::MAX))],
        Kind::Double => vec![
            ("not a number", Value::F64(f64::NAN)),
            ("infinite", Value::F64(f64::INFINITY)),
            ("below 0", Value::F64(-0.5)),
        ],
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => of_time(
            &message,
            &[
                ("before 1970", -1, 0),
                ("beyond all years", i64::MAX, 0),
                ("odd nanoseconds", 1_760_000_400, 2_000_000_000),
            ],
        ),
        Kind::Message(message) if message.full_name() == "google.protobuf.Duration" => of_time(
            &message,
            &[("below 0", -1, 0), ("beyond all years", i64::MAX, 0), ("odd nanoseconds", 600, -5)],
        ),
        Kind::Message(message) if message.full_name() == "google.protobuf.FieldMask" => {
            let mut mask = DynamicMessage::new(message);
            mask.set_field_by_name("paths", Value::List(vec![Value::String("nonsense".into())]));
            vec![("an unknown path", Value::Message(mask))]
        }
        _ => vec![],
    }
}

fn of_time(message: &MessageDescriptor, values: &[(&'static str, i64, i32)]) -> Vec<(&'static str, Value)> {
    let time = |seconds, nanos| {
        let mut time = DynamicMessage::new(message.clone());
        time.set_field_by_name("seconds", Value::I64(seconds));
        time.set_field_by_name("nanos", Value::I32(nanos));
        Value::Message(time)
    };
    values.iter().map(|(what, seconds, nanos)| (*what, time(*seconds, *nanos))).collect()
}

/// What is stored, as far as anybody can see.
async fn stored(channel: &Channel) -> Vec<Vec<u8>> {
    let contract = contract();
    let mut all = Vec::new();
    for rpc in [
        "AgentService.ListAgents",
        "AuditService.ListAuditEvents",
        "BoundaryService.ListBoundaries",
        "HarvestService.ListLatest",
        "LeaseService.ListLeases",
        "TokenService.ListTokens",
        "ViolationService.ListViolations",
    ] {
        let (service, name) = rpc.split_once('.').unwrap();
        let service = contract.get_service_by_name(&format!("memharvest.registry.v1.{service}")).unwrap();
        let method = service.methods().find(|method| method.name() == name).unwrap();
        let answer = call(channel, &method, vec![]).await.unwrap();
        let mut answer = DynamicMessage::decode(method.output(), answer.as_slice()).unwrap();
        without_clocks(&mut answer);
        all.push(answer.encode_to_vec());
    }
    all
}

/// Leaves out what moves by itself.
fn without_clocks(message: &mut DynamicMessage) {
    let moving = ["last_seen_at", "last_used_at", "held_back_bytes", "since"];
    for field in message.descriptor().fields().collect::<Vec<_>>() {
        if moving.contains(&field.name()) {
            message.clear_field(&field);
        } else if let Value::List(list) = message.get_field_mut(&field) {
            for value in list {
                if let Value::Message(inner) = value {
                    without_clocks(inner);
                }
            }
        }
    }
}

struct Spoiler<'a> {
    channel: &'a Channel,
    wrong: Vec<String>,
    sent: usize,
}

impl Visit for Spoiler<'_> {
    async fn before(&mut self, method: &MethodDescriptor, good: &DynamicMessage) {
        let before = stored(self.channel).await;
        for Bad { path, what, request } in bad_ones(good) {
            let field = format!("{} {path}", method.name());
            if LEFT_OUT.iter().any(|(left_out, _)| *left_out == field) {
                continue;
            }
            self.sent += 1;
            let outcome = call(self.channel, method, request.encode_to_vec()).await;
            match outcome {
                Err(status) if status.code() == Code::InvalidArgument => {
                    let named = memharvest_services::rpc_error::FieldViolations::of(&status);
                    let named: Vec<&str> = named.as_slice().iter().map(|one| one.field.as_str()).collect();
                    if !named.iter().any(|named| named.starts_with(&path)) {
                        self.wrong.push(format!(
                            "{field}: {what}: the error names {named:?}: {}",
                            status.message()
                        ));
                    }
                }
                Err(status) => {
                    self.wrong.push(format!("{field}: {what}: {:?}: {}", status.code(), status.message()));
                }
                Ok(_) => self.wrong.push(format!("{field}: {what}: taken")),
            }
        }
        if stored(self.channel).await != before {
            self.wrong.push(format!("{}: something was written", method.name()));
        }
    }
}

#[tokio::test]
async fn every_field_out_of_its_range_is_refused_by_its_name_and_nothing_is_written() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut spoiler = Spoiler { channel: &registry.channel, wrong: Vec::new(), sent: 0 };
    round(&registry.channel, 1, &mut spoiler).await;
    let Spoiler { wrong, sent, .. } = spoiler;
    assert!(sent > 300, "only {sent} bad requests");
    assert!(wrong.is_empty(), "{} of {sent}:\n{}", wrong.len(), wrong.join("\n"));
    registry.stop().await;
}
