//! Who makes a change, within calls that are handed on: a caller who is known by a token is the author, whatever he writes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use http_body_util::{BodyExt, Full, Limited};
use prost::Message;
use prost::bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::string;
use prost_types::FileDescriptorSet;
use tonic::Status;
use tonic::body::Body;

/// Longest message that names an author.
const LONGEST: usize = 1024 * 1024;
/// Flag and length before a message.
const FRAME: usize = 5;

/// The number of the field `author` in the request of every method that has one.
static AUTHORED: LazyLock<BTreeMap<String, u32>> = LazyLock::new(authored);

/// The field that names the author in a method's request; `None`: it changes nothing under a name.
pub(super) fn field_of(path: &str) -> Option<u32> {
    AUTHORED.get(path).copied()
}

/// The same request with another author. Of a field that comes twice the last one counts, so the name is put behind the
/// message as it came.
pub(super) async fn sign(body: Body, field: u32, author: &str) -> Result<Body, Status> {
    let whole = Limited::new(body, LONGEST).collect().await;
    let whole =
        whole.map_err(|error| Status::invalid_argument(format!("cannot read the request: {error}")))?;
    signed(&whole.to_bytes(), field, author).map(|bytes| Body::new(Full::new(bytes)))
}

fn signed(frame: &[u8], field: u32, author: &str) -> Result<Bytes, Status> {
    let length = frame.get(1..FRAME).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
    let fits = length.is_some_and(|length| usize::try_from(length) == Ok(frame.len() - FRAME));
    if !fits {
        return Err(Status::invalid_argument("the call must carry exactly one message"));
    }
    if frame[0] != 0 {
        return Err(Status::unimplemented(
            "compressed requests are not taken; send them with grpc-encoding identity",
        ));
    }
    let mut message = BytesMut::from(&frame[FRAME..]);
    string::encode(field, &author.to_owned(), &mut message);
    let length =
        u32::try_from(message.len()).map_err(|_| Status::invalid_argument("the message is too long"))?;
    let mut signed = BytesMut::with_capacity(FRAME + message.len());
    signed.put_u8(0);
    signed.put_u32(length);
    signed.put(message);
    Ok(signed.freeze())
}

fn authored() -> BTreeMap<String, u32> {
    let set = FileDescriptorSet::decode(memharvest_proto::DESCRIPTORS).unwrap_or_default();
    let mut fields = BTreeMap::new();
    for message in set.file.iter().flat_map(|file| file.message_type.iter().map(move |one| (file, one))) {
        let (file, message) = message;
        let author = message.field.iter().find(|field| field.name() == "author");
        if let Some(number) = author.and_then(|field| u32::try_from(field.number()).ok()) {
            fields.insert(format!(".{}.{}", file.package(), message.name()), number);
        }
    }
    let mut methods = BTreeMap::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                if let Some(number) = fields.get(method.input_type()) {
                    methods
                        .insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()), *number);
                }
            }
        }
    }
    methods
}

#[cfg(test)]
mod tests {
    use memharvest_proto::registry::v1::SetBoundaryRequest;

    use super::*;

    fn framed(message: &impl Message) -> Bytes {
        let bytes = message.encode_to_vec();
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(bytes.len()).unwrap());
        frame.put(bytes.as_slice());
        frame.freeze()
    }

    #[test]
    fn the_author_is_whoever_showed_a_token() {
        let field = field_of("/memharvest.registry.v1.BoundaryService/SetBoundary").unwrap();
        for given in ["", "mallory"] {
            let request = SetBoundaryRequest {
                scope: "fleet".into(),
                author: given.into(),
                reason: "why".into(),
                ..Default::default()
            };
            let frame = signed(&framed(&request), field, "ann").unwrap();
            let read = SetBoundaryRequest::decode(&frame[FRAME..]).unwrap();
            assert_eq!(
                (read.author.as_str(), read.scope.as_str(), read.reason.as_str()),
                ("ann", "fleet", "why")
            );
            assert_eq!(u32::from_be_bytes(frame[1..FRAME].try_into().unwrap()) as usize, frame.len() - FRAME);
        }
        for wrong in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x01", b"\0\0\0\0\0\0\0\0\0\0", b"\x01\0\0\0\0"] {
            assert!(signed(wrong, field, "ann").is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_change_names_its_author() {
        for method in [
            "BoundaryService/SetBoundary",
            "BoundaryService/DeleteBoundary",
            "ViolationService/AcknowledgeViolation",
            "ViolationService/ExplainViolation",
            "AgentService/DecommissionAgent",
            "TokenService/CreateToken",
            "TokenService/RevokeToken",
            "LeaseService/ReserveMemory",
            "LeaseService/RenewLease",
            "LeaseService/ReleaseLease",
        ] {
            assert!(field_of(&format!("/memharvest.registry.v1.{method}")).is_some(), "{method}");
        }
        assert_eq!(field_of("/memharvest.registry.v1.BoundaryService/GetBoundary"), None);
    }
}
