//! `ListVms`: machines by id, page after page; or searched and ordered by what people look at, found by a number of machines to skip.

use std::cmp::Ordering;
use std::sync::Arc;

use memharvest_proto::gateway::v1::{ListVmsRequest, ListVmsResponse, VmOrder};
use memharvest_proto::predictor::v1::Vm;
use memharvest_services::rpc_error::invalid_field;
use tonic::Status;

use crate::live::Snapshot;
use crate::rest::paging::slice_after;
use crate::rest::query::Page;

/// The machines that a request asks for.
pub(super) fn list(
    snapshot: &Snapshot,
    request: &ListVmsRequest,
    page: &Page,
) -> Result<ListVmsResponse, Status> {
    let order = request.order_by();
    let by_place = order != VmOrder::Unspecified || request.descending || request.skip > 0;
    if by_place && !request.page_token.is_empty() {
        return Err(invalid_field("page_token", "must be empty where order_by, descending or skip is given"));
    }
    let vms = match request.host_id.as_str() {
        "" => &snapshot.vms[..],
        host => snapshot.host(host).map_or(&[][..], |view| &view.vms),
    };
    let filter = Filter::of(request);
    if !by_place {
        let total = vms.iter().filter(|vm| filter.fits(vm)).count();
        let (vms, next_page_token) = slice_after(vms, |vm| &vm.vm_id, |vm| filter.fits(vm), page)
            .map_err(|error| invalid_field(error.field, error.message))?;
        return Ok(answer(vms, next_page_token, total));
    }
    let mut fitting: Vec<&Arc<Vm>> = vms.iter().filter(|vm| filter.fits(vm)).collect();
    fitting.sort_unstable_by(|a, b| {
        compare(order, request.descending, a, b).then_with(|| a.vm_id.cmp(&b.vm_id))
    });
    let total = fitting.len();
    let skip = usize::try_from(request.skip).unwrap_or(usize::MAX);
    let vms = fitting.into_iter().skip(skip).take(page.size).collect();
    Ok(answer(vms, String::new(), total))
}

fn answer(vms: Vec<&Arc<Vm>>, next_page_token: String, total: usize) -> ListVmsResponse {
    let vms = vms.into_iter().map(|vm| vm.as_ref().clone()).collect();
    ListVmsResponse { vms, next_page_token, total_size: u32::try_from(total).unwrap_or(u32::MAX) }
}

struct Filter {
    quality: i32,
    limited_by: i32,
    violating: bool,
    /// In lower case.
    search: String,
}

impl Filter {
    fn of(request: &ListVmsRequest) -> Self {
        Self {
            quality: request.quality,
            limited_by: request.limited_by,
            violating: request.violating,
            search: request.search.trim().to_lowercase(),
        }
    }

    fn fits(&self, vm: &Vm) -> bool {
        let has = |text: &str| text.to_lowercase().contains(&self.search);
        (self.quality == 0 || vm.quality == self.quality)
            && (self.limited_by == 0 || vm.limited_by == self.limited_by)
            && (!self.violating || vm.violations_open > 0)
            && (self.search.is_empty() || has(&vm.name) || has(&vm.vm_id) || has(&vm.host_id))
    }
}

fn compare(order: VmOrder, descending: bool, a: &Vm, b: &Vm) -> Ordering {
    let figure = |of: fn(&Vm) -> Option<u64>| match (of(a), of(b)) {
        (Some(a), Some(b)) => turned(a.cmp(&b), descending),
        // What is not known is last, whatever comes first.
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    match order {
        VmOrder::Unspecified => turned(a.vm_id.cmp(&b.vm_id), descending),
        VmOrder::Name => turned(a.name.cmp(&b.name), descending),
        VmOrder::Host => turned(a.host_id.cmp(&b.host_id), descending),
        VmOrder::Quality => turned(a.quality.cmp(&b.quality), descending),
        VmOrder::Violations => turned(a.violations_open.cmp(&b.violations_open), descending),
        VmOrder::Allocated => figure(|vm| vm.allocated_bytes),
        VmOrder::Rss => figure(|vm| vm.rss_bytes),
        VmOrder::Demand => figure(|vm| vm.demand_bytes),
        VmOrder::PredictedRss => figure(|vm| vm.predicted_rss_bytes),
        VmOrder::Harvestable => figure(|vm| vm.harvestable_bytes),
        VmOrder::Reclaimable => figure(|vm| vm.reclaimable_bytes),
    }
}

fn turned(ordering: Ordering, descending: bool) -> Ordering {
    if descending { ordering.reverse() } else { ordering }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Snapshot {
        let vm = |id: &str, name: &str, harvestable, open| {
            Arc::new(Vm {
                vm_id: id.into(),
                name: name.into(),
                host_id: "host-1".into(),
                harvestable_bytes: harvestable,
                violations_open: open,
                ..Vm::default()
            })
        };
        let vms = vec![
            vm("a", "Web-1", Some(3), 0),
            vm("b", "db", None, 1),
            vm("c", "web-2", Some(9), 0),
            vm("d", "queue", Some(3), 2),
        ];
        Snapshot { vms, ..Snapshot::default() }
    }

    fn ids(request: &ListVmsRequest) -> (String, u32) {
        let page = Page::new(usize::try_from(request.page_size).unwrap(), request.page_token.clone());
        let answer = list(&fleet(), request, &page).unwrap();
        (answer.vms.iter().map(|vm| vm.vm_id.as_str()).collect(), answer.total_size)
    }

    fn ordered(order: VmOrder, descending: bool) -> ListVmsRequest {
        ListVmsRequest { order_by: order.into(), descending, ..ListVmsRequest::default() }
    }

    #[test]
    fn what_is_not_known_is_last_and_equals_are_ordered_by_id() {
        assert_eq!(ids(&ordered(VmOrder::Harvestable, true)), ("cadb".into(), 4));
        assert_eq!(ids(&ordered(VmOrder::Harvestable, false)), ("adcb".into(), 4));
        assert_eq!(ids(&ordered(VmOrder::Violations, true)), ("dbac".into(), 4));
        assert_eq!(ids(&ordered(VmOrder::Unspecified, true)), ("dcba".into(), 4));
    }

    #[test]
    fn a_part_in_the_middle_is_found_and_the_total_told() {
        let middle = ListVmsRequest { skip: 1, page_size: 2, ..ordered(VmOrder::Name, false) };
        assert_eq!(ids(&middle), ("bd".into(), 4));
        let beyond = ListVmsRequest { skip: 9, ..ordered(VmOrder::Name, false) };
        assert_eq!(ids(&beyond), (String::new(), 4));
    }

    #[test]
    fn search_knows_no_case_and_filters_add_up() {
        let search = |text: &str| ListVmsRequest { search: text.into(), ..ListVmsRequest::default() };
        assert_eq!(ids(&search("WEB")), ("ac".into(), 2));
        assert_eq!(ids(&search("host-1")), ("abcd".into(), 4));
        assert_eq!(ids(&ListVmsRequest { violating: true, ..search("e") }), ("d".into(), 1));
    }

    #[test]
    fn a_token_and_a_place_contradict_each_other() {
        let request = ListVmsRequest { page_token: "61".into(), skip: 1, ..ListVmsRequest::default() };
        let page = Page::new(0, "61".into());
        assert_eq!(list(&fleet(), &request, &page).unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
