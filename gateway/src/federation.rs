//! `/federate?match[]=…`: the newest sample of every series of the fleet, its hosts and its machines that a selector chooses,
//! from the live state: for a Prometheus that scrapes no collectors.
//!
//! The page is made while it is read, so that a selector which chooses everything costs no more memory than one which
//! chooses nothing.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::unfold;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fleet_metrics;
use crate::live::Snapshot;
use crate::rest::App;
use crate::rest::problem::Problem;
use crate::rest::query::Query;

mod selected;
mod selector;
mod series;

use selected::Selected;
use selector::Selector;
use series::{FAMILIES, Family, Times};

/// Selectors in one request at most.
const SELECTORS: usize = 64;
/// Longest selector.
const SELECTOR_BYTES: usize = 4096;
/// Pages in the making at once.
const PAGES: usize = 8;
/// A part of a page is sent when it is about this long.
const PART_BYTES: usize = 128 * 1024;

static PAGES_IN_THE_MAKING: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(PAGES)));

/// The page.
pub(crate) async fn page(State(app): State<App>, mut query: Query) -> Result<Response, Problem> {
    let selectors = selectors(&mut query);
    query.finish()?;
    let permit = Arc::clone(&PAGES_IN_THE_MAKING).try_acquire_owned().map_err(|_| {
        let detail = format!("{PAGES} federation pages are being read already; try again later");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    let page = Page {
        times: Times::new(app.live.clock()),
        snapshot: app.live.snapshot(),
        selectors,
        left: FAMILIES.iter().collect(),
        host: 0,
        begun: false,
        _permit: permit,
    };
    let parts = unfold(page, |mut page| async { page.next().map(|part| (Ok::<_, axum::Error>(part), page)) });
    // Whoever compresses it asks once more after its end.
    let parts = parts.fuse();
    Ok(([(CONTENT_TYPE, fleet_metrics::TEXT_FORMAT)], Body::from_stream(parts)).into_response())
}

fn selectors(query: &mut Query) -> Vec<Selector> {
    let texts = query.all("match[]");
    if texts.is_empty() || texts.len() > SELECTORS {
        query.refuse(
            "match[]",
            format!("give 1 to {SELECTORS} selectors, such as match[]=memharvest_host_vms"),
        );
        return Vec::new();
    }
    let mut selectors = Vec::new();
    for text in texts {
        if text.len() > SELECTOR_BYTES {
            query.refuse("match[]", format!("is longer than {SELECTOR_BYTES} bytes"));
            continue;
        }
        match Selector::parse(&text) {
            Ok(selector) => selectors.push(selector),
            Err(error) => query.refuse("match[]", format!("`{text}`: {error}")),
        }
    }
    selectors
}

/// A page that is being read.
struct Page {
    times: Times,
    snapshot: Arc<Snapshot>,
    selectors: Vec<Selector>,
    left: VecDeque<&'static Family>,
    /// The host that comes next in the family that is first now.
    host: usize,
    begun: bool,
    _permit: OwnedSemaphorePermit,
}

impl Page {
    /// The next part of it; `None`: it is complete.
    fn next(&mut self) -> Option<Bytes> {
        let mut out = Selected::new(&self.selectors);
        if !std::mem::replace(&mut self.begun, true) {
            out.at(self.times.now_ms());
            fleet_metrics::write(&mut out, &self.snapshot);
        }
        while out.len() < PART_BYTES
            && let Some(family) = self.left.front()
        {
            // A family that goes on in another part has its header already.
            let chosen = out.family(family.name, family.help, family.kind, self.host > 0);
            let hosts = self.snapshot.hosts.get(self.host..).filter(|_| chosen).unwrap_or_default();
            let mut complete = true;
            for view in hosts {
                if out.len() >= PART_BYTES {
                    complete = false;
                    break;
                }
                family.write(&mut out, view, &self.times);
                self.host += 1;
            }
            if complete {
                self.left.pop_front();
                self.host = 0;
            }
        }
        let part = out.finish();
        (!part.is_empty() || !self.left.is_empty()).then(|| part.into())
    }
}
