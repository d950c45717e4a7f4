//! One call for the figures of all running domains.
//!
//! This is the only `unsafe` code of the workspace: the binding hands out the call's raw list and frees nothing,
//! so the list is owned here by a guard, copied into plain records, and freed.

#![expect(unsafe_code, reason = "the binding offers the bulk call only as raw pointers and leaks its list")]

use std::collections::HashMap;
use std::ffi::CStr;
use std::{ptr, slice};

use uuid::Uuid;
use virt::connect::Connect;
use virt::error::Error;
use virt::sys;

use super::record::DomainRecord;

/// Name and UUID of the domains that were there at the last call, by the number of their process. libvirt's
/// client prints a UUID whenever it is asked for one, which for many domains costs as much as all their figures.
pub(super) type Known = HashMap<u32, (String, Uuid)>;

/// The state and memory figures of all active domains. A domain whose monitor is busy is listed without the
/// figures that only its monitor knows, rather than waited for.
///
/// # Errors
/// What libvirt answers.
pub(super) fn read(connection: &Connect, known: &mut Known) -> Result<Vec<DomainRecord>, Error> {
    let groups = sys::VIR_DOMAIN_STATS_STATE | sys::VIR_DOMAIN_STATS_BALLOON;
    let flags = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
    let mut head = ptr::null_mut();
    // SAFETY: the connection outlives the call, and `head` is a valid place for the list's address.
    let count =
        unsafe { sys::virConnectGetAllDomainStats(connection.as_ptr(), groups, &raw mut head, flags) };
    let list = RecordList { head, count: usize::try_from(count).map_err(|_| Error::last_error())? };
    let records: Vec<_> = list.records().iter().filter_map(|record| copy(record, known)).collect();
    if known.len() > records.len() {
        known.retain(|id, _| records.iter().any(|record| record.id == *id));
    }
    Ok(records)
}

/// A list that libvirt allocated; dropping it frees the list with its domains and parameters.
struct RecordList {
    head: *mut sys::virDomainStatsRecordPtr,
    count: usize,
}

impl RecordList {
    fn records(&self) -> &[&sys::virDomainStatsRecord] {
        if self.head.is_null() {
            return &[];
        }
        // SAFETY: libvirt returned `count` non-null records at `head`; they live until the list is freed, which
        // the guard's own lifetime holds back. A reference has the layout of a non-null pointer.
        unsafe { slice::from_raw_parts(self.head.cast(), self.count) }
    }
}

impl Drop for RecordList {
    fn drop(&mut self) {
        // SAFETY: `head` came from libvirt, is freed only here, and null is accepted.
        unsafe { sys::virDomainStatsRecordListFree(self.head) };
    }
}

/// Copies a record; none where libvirt does not know the domain's identity.
fn copy(record: &sys::virDomainStatsRecord, known: &mut Known) -> Option<DomainRecord> {
    // SAFETY: the record owns a valid domain; neither call leaves the process, and the name is a string owned by it.
    let (id, name) = unsafe { (sys::virDomainGetID(record.dom), text(sys::virDomainGetName(record.dom))) };
    let uuid = match known.get(&id) {
        Some((known, uuid)) if *known == name => *uuid,
        _ => {
            let uuid = uuid(record)?;
            known.insert(id, (name.clone(), uuid));
            uuid
        }
    };
    let mut copied = DomainRecord::new(uuid, id, name);
    for parameter in parameters(record) {
        // SAFETY: libvirt ends every field name with a NUL inside its 80 bytes.
        let field = unsafe { CStr::from_ptr(parameter.field.as_ptr()) };
        if let (Ok(field), Some(value)) = (field.to_str(), number(parameter)) {
            copied.set(field, value);
        }
    }
    Some(copied)
}

fn uuid(record: &sys::virDomainStatsRecord) -> Option<Uuid> {
    let mut uuid = [0_u8; 16];
    // SAFETY: the record owns a valid domain, and `uuid` holds the 16 bytes (VIR_UUID_BUFLEN) that are written.
    let failed = unsafe { sys::virDomainGetUUID(record.dom, uuid.as_mut_ptr()) } != 0;
    (!failed).then(|| Uuid::from_bytes(uuid))
}

fn parameters(record: &sys::virDomainStatsRecord) -> &[sys::virTypedParameter] {
    match usize::try_from(record.nparams) {
        // SAFETY: libvirt returned `nparams` initialised parameters at `params`, owned by the record.
        Ok(count) if !record.params.is_null() => unsafe { slice::from_raw_parts(record.params, count) },
        _ => &[],
    }
}

fn number(parameter: &sys::virTypedParameter) -> Option<u64> {
    // SAFETY: `type_` tells which member of the union libvirt wrote.
    unsafe {
        match u32::try_from(parameter.type_).ok()? {
            sys::VIR_TYPED_PARAM_INT => u64::try_from(parameter.value.i).ok(),
            sys::VIR_TYPED_PARAM_UINT => Some(u64::from(parameter.value.ui)),
            sys::VIR_TYPED_PARAM_LLONG => u64::try_from(parameter.value.l).ok(),
            sys::VIR_TYPED_PARAM_ULLONG => Some(parameter.value.ul),
            _ => None,
        }
    }
}

/// # Safety
/// `pointer` is null or a string that ends with a NUL.
unsafe fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: promised by the caller.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
