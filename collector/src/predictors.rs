//! Which of several predictors a host's readings go to.
//!
//! By rendezvous hashing (Thaler and Ravishankar, 1998) every collector comes to the same answer without asking anybody, and one
//! predictor more or less moves only its own share of the hosts. A predictor whose name is not known to DNS does not run: in Kubernetes
//! a headless Service gives a name to those alone that are ready. A host that moves is warm there, since models lie in the registry.

use std::time::Duration;

use futures::future::join_all;
use memharvest_services::rpc_client::RpcChannel;
use tokio::net::lookup_host;
use tonic::transport::Uri;
use uuid::Uuid;

/// How often the names are looked up again, and how long an answer may take.
const LOOK_UP_EVERY: Duration = Duration::from_secs(15);
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(5);

/// The predictors that there may be, and the one in use.
#[derive(Debug)]
pub struct Predictors {
    host: String,
    each: Vec<(String, RpcChannel)>,
    chosen: usize,
}

impl Predictors {
    /// `each` is a predictor's URL and the channel to it, one or more; `host` is the identity that is spread.
    #[must_use]
    pub fn new(host: &str, each: Vec<(String, RpcChannel)>) -> Self {
        let chosen = pick(host, each.iter().map(|(url, _)| url.as_str()).enumerate()).unwrap_or_default();
        Self { host: host.to_owned(), each, chosen }
    }

    /// Looks the names up and settles on a predictor. Where no name is known the names are not to blame: the last choice stays.
    pub async fn settle(&mut self) -> Option<(String, RpcChannel)> {
        self.chosen = self.better().await.unwrap_or(self.chosen);
        self.each.get(self.chosen).cloned()
    }

    /// Waits until another predictor than the one in use is the host's; for ever where there is but one.
    pub async fn moved(&self) {
        loop {
            tokio::time::sleep(LOOK_UP_EVERY).await;
            if self.each.len() > 1 && self.better().await.is_some_and(|better| better != self.chosen) {
                return;
            }
        }
    }

    async fn better(&self) -> Option<usize> {
        if self.each.len() < 2 {
            return None;
        }
        let known = join_all(self.each.iter().map(|(url, _)| is_known(url))).await;
        let urls = self.each.iter().map(|(url, _)| url.as_str()).enumerate();
        pick(&self.host, urls.filter(|(place, _)| known[*place]))
    }
}

async fn is_known(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    // The port plays no part.
    let looked_up = tokio::time::timeout(LOOK_UP_PATIENCE, lookup_host((host, 1))).await;
    looked_up.is_ok_and(|found| found.is_ok_and(|mut addresses| addresses.next().is_some()))
}

/// The predictor with the greatest hash of its URL and the host; absent where there is none.
fn pick<'a>(host: &str, urls: impl Iterator<Item = (usize, &'a str)>) -> Option<usize> {
    let weight = |url: &str| Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{url} {host}").as_bytes());
    urls.max_by_key(|(_, url)| weight(url)).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use memharvest_proto::DESCRIPTORS;
    use memharvest_services::Service;
    use memharvest_services::metrics::Metrics;
    use memharvest_services::rpc_client::{ClientOptions, connect_lazy};

    use super::*;

    fn urls(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("http://predictor-{i}.predictor:7402")).collect()
    }

    fn picks(urls: &[String]) -> Vec<&str> {
        let one = |host: usize| {
            let place = pick(&format!("host-{host}"), urls.iter().map(String::as_str).enumerate());
            urls[place.unwrap()].as_str()
        };
        (0..1000).map(one).collect()
    }

    #[test]
    fn hosts_are_spread_and_one_predictor_more_moves_only_its_share() {
        let (three, four) = (urls(3), urls(4));
        let (before, after) = (picks(&three), picks(&four));
        for url in &three {
            let share = before.iter().filter(|picked| *picked == url).count();
            assert!((250..420).contains(&share), "{url}: {share}");
        }
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!((180..320).contains(&moved.len()), "{}", moved.len());
        assert!(moved.iter().all(|(_, after)| **after == four[3]));
    }

    #[test]
    fn the_order_of_the_settings_plays_no_part() {
        let forwards = urls(5);
        let backwards: Vec<String> = forwards.iter().rev().cloned().collect();
        assert_eq!(picks(&forwards), picks(&backwards));
        assert_eq!(pick("a", std::iter::empty()), None);
    }

    #[tokio::test]
    async fn a_predictor_without_a_name_is_passed_over() {
        let metrics = Metrics::new(&Service::new("memharvest-collector", "0.0.0")).unwrap();
        let clients = ClientOptions::new(&metrics, DESCRIPTORS).unwrap();
        let with = |urls: &[&str]| {
            let each = urls.iter().map(|url| ((*url).to_owned(), connect_lazy(url, &clients).unwrap()));
            Predictors::new("host", each.collect())
        };
        for host in ["http://127.0.0.1:7402", "http://[::1]:7402"] {
            let mut predictors = with(&["http://a.invalid:7402", host, "http://b.invalid:7402"]);
            assert_eq!(predictors.settle().await.unwrap().0, host);
        }
        let mut nowhere = with(&["http://a.invalid:7402", "http://b.invalid:7402"]);
        let first = nowhere.settle().await.unwrap().0;
        assert_eq!(nowhere.settle().await.unwrap().0, first);
    }
}
