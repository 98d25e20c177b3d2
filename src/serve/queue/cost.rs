//! What requests cost: an estimate for each route, learned from the CPU time of those that were run.
//!
//! A route is a method and the first segments of a path, those with digits in them taken for names of things (`/users/17` and
//! `/users/18` are one route). The table has a fixed size; routes that fall into the same place take turns in it.
//! Read by reactors, written by workers, without locks: an estimate that is lost is learned again.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits;

/// Segments of a path that make a route.
const SEGMENTS: usize = 4;
/// Bytes from which on a segment is taken for the name of a thing.
const SEGMENT_BYTES_MAX: usize = 32;
/// CPU microseconds up to which a request is cheap; each doubling is a level more.
const CHEAP_US: u32 = 1_000;
/// The highest level: from 128 ms on.
pub const LEVELS_MAX: u8 = 8;

/// A route, hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route(u64);

/// The estimates.
pub struct Costs {
    /// Upper half: of the route's hash; lower half: microseconds, moving average.
    places: Box<[AtomicU64]>,
    /// Of all requests: what a route that isn't known is taken to cost.
    overall: AtomicU64,
    hasher: ahash::RandomState,
}

impl Default for Costs {
    fn default() -> Self {
        let places = (0..limits::ROUTES_MAX).map(|_| AtomicU64::new(0)).collect();
        Self { places, overall: AtomicU64::new(0), hasher: ahash::RandomState::new() }
    }
}

impl Costs {
    /// The route of a request; `path` as sent.
    pub fn route(&self, method: &[u8], path: &[u8]) -> Route {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(method);
        for segment in path.split(|byte| *byte == b'/').skip(1).take(SEGMENTS) {
            let is_name = segment.len() > SEGMENT_BYTES_MAX || segment.iter().any(u8::is_ascii_digit);
            hasher.write(if is_name { b"*" } else { segment });
            hasher.write_u8(b'/');
        }
        // Never zero: that is an empty place.
        Route(hasher.finish() | 1 << 32)
    }

    /// Levels of cost of a request: 0 for one that is cheap, or about which nothing is known at all.
    pub fn levels(&self, route: Route) -> u8 {
        let (place, tag) = self.place(route);
        let known = place.load(Ordering::Relaxed);
        let microseconds = if known >> 32 == tag { known as u32 } else { self.overall.load(Ordering::Relaxed) as u32 };
        let doublings = (microseconds / CHEAP_US).checked_ilog2().map_or(0, |doublings| doublings + 1);
        (doublings as u8).min(LEVELS_MAX)
    }

    /// A request of this route has used so much CPU time.
    pub fn learn(&self, route: Route, cpu: Duration) {
        let spent = u32::try_from(cpu.as_micros()).unwrap_or(u32::MAX);
        let (place, tag) = self.place(route);
        let known = place.load(Ordering::Relaxed);
        let average = if known >> 32 == tag { moved(known as u32, spent, 8) } else { spent };
        place.store(tag << 32 | u64::from(average), Ordering::Relaxed);
        let overall = moved(self.overall.load(Ordering::Relaxed) as u32, spent, 64);
        self.overall.store(u64::from(overall), Ordering::Relaxed);
    }

    fn place(&self, route: Route) -> (&AtomicU64, u64) {
        (&self.places[route.0 as u32 as usize % self.places.len()], route.0 >> 32)
    }
}

/// `average` moved towards `value` by one part in `weight`.
fn moved(average: u32, value: u32, weight: i64) -> u32 {
    let step = (i64::from(value) - i64::from(average)) / weight;
    // A step of less than one is one, or the average would never arrive.
    let step = if step == 0 { (i64::from(value) - i64::from(average)).signum() } else { step };
    (i64::from(average) + step) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn routes_are_told_apart_by_what_is_no_name_of_a_thing() {
        let costs = Costs::default();
        let route = |method: &str, path: &str| costs.route(method.as_bytes(), path.as_bytes());
        assert_eq!(route("GET", "/users/17/orders"), route("GET", "/users/18/orders"));
        assert_eq!(route("GET", "/a/0f3c-11"), route("GET", "/a/77"));
        assert_eq!(route("GET", &format!("/a/{}", "x".repeat(33))), route("GET", "/a/1"));
        assert_ne!(route("GET", "/users/17/orders"), route("POST", "/users/17/orders"));
        assert_ne!(route("GET", "/users/17/orders"), route("GET", "/users/17/invoices"));
        assert_ne!(route("GET", "/ab/c"), route("GET", "/a/bc"));
        assert_eq!(route("GET", "/a/b/c/d/e"), route("GET", "/a/b/c/d/f"), "four segments count");
        assert_ne!(route("GET", "*"), Route(0));
    }

    #[test]
    fn estimates_follow_what_is_seen() {
        let costs = Costs::default();
        let (cheap, dear) = (costs.route(b"GET", b"/"), costs.route(b"GET", b"/report"));
        assert_eq!((costs.levels(cheap), costs.levels(dear)), (0, 0));
        costs.learn(dear, ms(20));
        assert_eq!(costs.levels(dear), 5, "16 to 32 ms");
        costs.learn(cheap, Duration::from_micros(50));
        assert_eq!(costs.levels(cheap), 0);
        for _ in 0..100 {
            costs.learn(dear, Duration::from_micros(10));
        }
        assert_eq!(costs.levels(dear), 0);
        for _ in 0..200 {
            costs.learn(dear, Duration::from_secs(10_000));
        }
        assert_eq!(costs.levels(dear), LEVELS_MAX);
        let unknown = costs.route(b"GET", b"/never-seen");
        assert!(costs.levels(unknown) > 0, "an unknown route costs what requests cost on average");
    }

    #[test]
    fn each_doubling_is_a_level() {
        for (cpu, levels) in
            [(0, 0), (999, 0), (1_000, 1), (1_999, 1), (2_000, 2), (4_000, 3), (127_999, 7), (128_000, 8)]
        {
            let costs = Costs::default();
            let route = costs.route(b"GET", b"/");
            costs.learn(route, Duration::from_micros(cpu));
            assert_eq!(costs.levels(route), levels, "{cpu} µs");
        }
    }

    #[test]
    fn an_average_arrives() {
        let arrive = |from, to| {
            let mut average = from;
            for _ in 0..500 {
                average = moved(average, to, 8);
            }
            average
        };
        assert_eq!((arrive(0, 1_234), arrive(1_234, 0), arrive(u32::MAX, 7)), (1_234, 0, 7));
    }
}
