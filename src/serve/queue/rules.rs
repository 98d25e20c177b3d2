//! What the operator has said about who is next.

use std::net::IpAddr;

use super::cost::{Costs, Route};
use super::formula::{self, Asking, Source};
use crate::limits;

/// The rules of one process's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `--priority`; off: first come, first served.
    pub priority: bool,
    /// `--priority-prefix`: what a path begins with, and what that adds.
    pub prefixes: Vec<(Vec<u8>, i32)>,
    /// `--priority-by-cost`.
    pub by_cost: bool,
    /// `--queue`.
    pub requests: usize,
    /// `--shed`.
    pub shed: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { priority: true, prefixes: Vec::new(), by_cost: false, requests: limits::QUEUE_REQUESTS, shed: false }
    }
}

/// What of a request decides.
pub struct Request<'a> {
    /// Method token.
    pub method: &'a [u8],
    /// Path, percent-decoded.
    pub path: &'a [u8],
    /// Query without its `?`.
    pub query: &'a [u8],
    /// The client.
    pub address: Option<IpAddr>,
    /// Whether the client's address is only that of a proxy that has told nonsense: then it is never exempt.
    pub garbled: bool,
}

impl Rules {
    /// What a request is worth, and its route if that is of interest. The user agent is looked for only if it matters.
    pub fn asking<'a>(
        &self,
        request: &Request<'a>,
        costs: &Costs,
        user_agent: impl FnOnce() -> Option<&'a [u8]>,
    ) -> (Asking, Route) {
        if !self.priority {
            return (Asking::default(), Route::default());
        }
        let source = request.address.and_then(|address| match request.garbled {
            true => Some(Source::counted(address)),
            false => Source::of(address),
        });
        let mut worth = formula::BEGINNING;
        if !request.query.is_empty() {
            worth -= formula::QUERY;
        }
        if source.is_some() && user_agent().is_some_and(formula::is_bot) {
            worth -= formula::BOT;
        }
        worth += self.prefix(request.path);
        let route = if self.by_cost { costs.route(request.method, request.path) } else { Route::default() };
        let cost_levels = if self.by_cost { costs.levels(route) } else { 0 };
        (Asking { source, worth, cost_levels }, route)
    }

    /// What the longest prefix of a path adds.
    fn prefix(&self, path: &[u8]) -> i32 {
        let matching = self.prefixes.iter().filter(|(prefix, _)| path.starts_with(prefix));
        matching.max_by_key(|(prefix, _)| prefix.len()).map_or(0, |(_, points)| *points)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worth(rules: &Rules, path: &str, query: &str, address: &str, user_agent: &str) -> Asking {
        let (path, query, address) = (path.as_bytes(), query.as_bytes(), address.parse().ok());
        let request = Request { method: b"GET", path, query, address, garbled: false };
        rules.asking(&request, &Costs::default(), || Some(user_agent.as_bytes())).0
    }

    #[test]
    fn worths() {
        let rules = Rules::default();
        let check = |query, address, user_agent, expected| {
            assert_eq!(
                worth(&rules, "/", query, address, user_agent).worth,
                expected,
                "{query} {address} {user_agent}"
            );
        };
        check("", "203.0.113.1", "Mozilla", 1000);
        check("a=b", "203.0.113.1", "Mozilla", 500);
        check("", "203.0.113.1", "Googlebot", -7000);
        check("a", "203.0.113.1", "Googlebot", -7500);
        check("", "10.0.0.1", "Googlebot", 1000);
        check("a", "a Unix socket", "Googlebot", 500);
        assert_eq!(
            worth(&Rules { priority: false, ..Rules::default() }, "/", "a", "203.0.113.1", "bot"),
            Asking::default()
        );
    }

    #[test]
    fn the_longest_prefix_counts() {
        let prefixes = vec![(b"/api".to_vec(), 500), (b"/api/slow".to_vec(), -300), (b"/".to_vec(), 7)];
        let rules = Rules { prefixes, ..Rules::default() };
        let check = |path, expected| assert_eq!(worth(&rules, path, "", "10.0.0.1", "").worth, expected, "{path}");
        check("/api", 1500);
        check("/apiary", 1500);
        check("/api/slow/1", 700);
        check("/ap", 1007);
        check("*", 1000);
    }

    #[test]
    fn a_proxy_that_tells_nonsense_isn_t_exempt() {
        let request =
            |garbled| Request { method: b"GET", path: b"/", query: b"", address: "10.0.0.1".parse().ok(), garbled };
        let source = |garbled| Rules::default().asking(&request(garbled), &Costs::default(), || None).0.source;
        assert_eq!((source(false), source(true).is_some()), (None, true));
    }

    #[test]
    fn cost_is_asked_for_only_when_it_counts() {
        let costs = Costs::default();
        costs.learn(costs.route(b"GET", b"/report/1"), std::time::Duration::from_millis(40));
        let request = Request { method: b"GET", path: b"/report/2", query: b"", address: None, garbled: false };
        let levels = |by_cost| Rules { by_cost, ..Rules::default() }.asking(&request, &costs, || None).0.cost_levels;
        assert_eq!((levels(false), levels(true)), (0, 6));
    }
}
