//! Two versions side by side: callers that know fields which this registry does not, callers of the released contract, and tables that a
//! newer registry has added to while this one runs.

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MethodDescriptor, ReflectMessage as _, UnknownField, Value,
};

use crate::every_rpc::{Nothing, Visit, round};
use crate::postgres;
use crate::process::{program, start};
use crate::server::{TestRegistry, database};

/// A caller of the next version: every message that it sends has fields that are not known here.
struct Newer;

impl Visit for Newer {
    fn sent(&self, good: DynamicMessage) -> Vec<u8> {
        let mut newer = good;
        each(&mut newer, &extend);
        newer.encode_to_vec()
    }
}

/// The message and all within it.
fn each(message: &mut DynamicMessage, change: &impl Fn(&mut DynamicMessage)) {
    for field in message.descriptor().fields().collect::<Vec<_>>() {
        if !message.has_field(&field) || field.is_map() {
            continue;
        }
        match message.get_field_mut(&field) {
            Value::Message(inner) => each(inner, change),
            Value::List(list) => {
                for value in list {
                    if let Value::Message(inner) = value {
                        each(inner, change);
                    }
                }
            }
            _ => {}
        }
    }
    change(message);
}

/// `field 15000: "later"`.
fn extend(message: &mut DynamicMessage) {
    let later = [0xc2, 0xa9, 0x07, 5, b'l', b'a', b't', b'e', b'r'];
    message.merge(later.as_slice()).unwrap();
    assert_eq!(message.unknown_fields().map(UnknownField::number).last(), Some(15_000));
}

#[tokio::test]
async fn a_caller_of_the_next_version_is_served() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    round(&registry.channel, 1, &mut Newer).await;
    registry.stop().await;
}

/// A caller of the contract as it was released: what it does not know it does not send, and passes over in answers.
struct Released {
    contract: DescriptorPool,
    heard: usize,
}

impl Visit for Released {
    fn sent(&self, good: DynamicMessage) -> Vec<u8> {
        let Some(known) = self.contract.get_message_by_name(good.descriptor().full_name()) else {
            return good.encode_to_vec();
        };
        let mut older = DynamicMessage::decode(known, good.encode_to_vec().as_slice()).unwrap();
        // Drops what is not known.
        each(&mut older, &|message| message.take_unknown_fields().for_each(drop));
        // What it has no word for it does not ask.
        let says_something = older.fields().next().is_some() || good.fields().next().is_none();
        let whole = older
            .descriptor()
            .oneofs()
            .all(|one| one.fields().any(|field| older.has_field(&field)) || one.is_synthetic());
        if says_something && whole { older.encode_to_vec() } else { good.encode_to_vec() }
    }

    fn after(&mut self, method: &MethodDescriptor, answer: &[u8]) {
        let Some(known) = self.contract.get_message_by_name(method.output().full_name()) else { return };
        let older = DynamicMessage::decode(known, answer).unwrap();
        let now = DynamicMessage::decode(method.output(), answer).unwrap();
        for field in older.descriptor().fields() {
            assert_eq!(older.has_field(&field), now.has_field_by_name(field.name()), "{}", field.full_name());
        }
        self.heard += 1;
    }
}

#[tokio::test]
async fn a_caller_of_the_released_contract_is_served() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let contract =
        DescriptorPool::decode(include_bytes!("../../../proto/released.binpb").as_slice()).unwrap();
    let mut released = Released { contract, heard: 0 };
    round(&registry.channel, 1, &mut released).await;
    assert!(released.heard > 20, "{} answers", released.heard);
    registry.stop().await;
}

/// What the migrations of the next version may do while this one runs: add to every table, and add tables.
const EXPAND: &str = "DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
        AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> '_sqlx_migrations'
    LOOP EXECUTE format('ALTER TABLE %I ADD COLUMN later text', name); END LOOP;
    CREATE TABLE later (id bigint PRIMARY KEY);
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'later', true, '', 1);
END $$";

#[tokio::test]
async fn a_registry_works_on_while_a_newer_one_adds_to_its_tables() {
    let url = postgres::database().await;
    let (_running, channel) = start(program(&url)).await;
    round(&channel, 1, &mut Nothing).await;
    postgres::run(&url, EXPAND).await;
    // Its connections know the tables as they were.
    round(&channel, 2, &mut Nothing).await;
    let mut another = program(&url);
    another.args(["--agent-id", "another"]);
    let (_starts_later, to_another) = start(another).await;
    round(&to_another, 3, &mut Nothing).await;
    round(&channel, 4, &mut Nothing).await;
}
