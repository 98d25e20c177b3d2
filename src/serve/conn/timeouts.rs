//! When a connection has waited long enough, and what follows. Pure: a phase and `now` in, a value out.

use std::time::Duration;

use super::{Connection, Phase};
use crate::config::Config;
use crate::limits;
use crate::reactor::clock::Instant;

/// How long each phase may last.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a head, from its first byte or from the opening of the connection.
    pub header: Duration,
    /// Between two bytes of a request body.
    pub body: Duration,
    /// Between two bytes of a response taken by the client.
    pub send: Duration,
    /// Between two requests; zero when connections aren't kept.
    pub keep_alive: Duration,
    /// For a request in the queue, and again while it runs.
    pub request: Duration,
}

impl Timeouts {
    /// The time-outs of `config`.
    pub fn new(config: &Config) -> Self {
        Self {
            header: config.header_timeout,
            body: config.body_timeout,
            send: config.send_timeout,
            keep_alive: config.keep_alive,
            request: config.request_timeout,
        }
    }
}

/// What follows when a deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// Not over yet: look again then.
    Later(Instant),
    /// Close without a word: nothing was asked, or nothing can be answered.
    Close,
    /// Answer 408 and close.
    RequestTimeout,
    /// End the wait of a parked request.
    Parked,
    /// Answer 504, while the worker goes on for nobody; or 503 if it is a disk that took too long.
    GatewayTimeout,
}

/// The deadline of the phase the connection has just entered (or in which it has just made progress).
pub fn deadline(connection: &Connection, now: Instant, timeouts: &Timeouts) -> Instant {
    now + match &connection.phase {
        Phase::Parked { until, .. } => return *until,
        // A client that opens a connection is about to ask; one that was answered may take its time.
        Phase::Idle if connection.requests == 0 => timeouts.header,
        Phase::Idle => timeouts.keep_alive,
        Phase::Head { .. } => timeouts.header,
        Phase::Body { complete: false, .. } => timeouts.body,
        // The disk thread always answers; the client isn't at fault meanwhile.
        Phase::Body { complete: true, .. } => timeouts.request,
        Phase::Waiting { .. } => timeouts.request,
        Phase::Responding { .. } => timeouts.send,
        Phase::Lingering { until } => return (*until).min(now + Duration::from_millis(limits::LINGER_MS)),
        Phase::Closing => timeouts.send,
    }
}

/// What follows from `now`, given that the timer wheel has come to this connection.
pub fn expired(connection: &Connection, now: Instant, timeouts: &Timeouts) -> Expired {
    if let Phase::Waiting { link, .. } = &connection.phase {
        // The time in the queue and the time of running are limited separately (spec A). A handler that was interrupted may answer.
        let grace = Duration::from_millis(limits::ANSWER_GRACE_MS);
        let end = link.started().map_or(connection.deadline, |started| started + timeouts.request + grace);
        return if end > now { Expired::Later(end) } else { Expired::GatewayTimeout };
    }
    if connection.deadline > now {
        return Expired::Later(connection.deadline);
    }
    match &connection.phase {
        Phase::Head { .. } => Expired::RequestTimeout,
        // The client is not at fault while a disk is waited for.
        Phase::Body { complete, store, .. } if *complete || store.is_full() => Expired::GatewayTimeout,
        Phase::Body { .. } => Expired::RequestTimeout,
        Phase::Parked { .. } => Expired::Parked,
        Phase::Waiting { .. } => Expired::GatewayTimeout,
        // A streaming application that has nothing to say isn't a client that doesn't read.
        Phase::Responding { .. } if !connection.sending => Expired::Later(now + timeouts.send),
        Phase::Idle | Phase::Responding { .. } | Phase::Lingering { .. } | Phase::Closing => Expired::Close,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::super::{After, BodyStore};
    use super::*;
    use crate::reactor::Token;
    use crate::serve::exchange::Peer;
    use crate::serve::http1::{BodyDecoder, Framing, Version};

    const START: Instant = Instant::from_nanos(1_000_000_000_000);
    /// All different, so that no one can stand for another.
    const TIMEOUTS: Timeouts = Timeouts {
        header: Duration::from_secs(3),
        body: Duration::from_secs(5),
        send: Duration::from_secs(7),
        keep_alive: Duration::from_secs(11),
        request: Duration::from_secs(13),
    };
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn connection(phase: Phase) -> Connection {
        let socket = UnixStream::pair().unwrap().0;
        let mut connection = Connection::new(socket.into(), Token { slot: 0, generation: 0 }, 0, Peer::Unix);
        connection.phase = phase;
        connection
    }

    fn body(complete: bool) -> Connection {
        let decoder = BodyDecoder::new(Framing::Chunked, 1).unwrap();
        connection(Phase::Body { exchange: Box::default(), decoder, store: BodyStore::new(None), complete })
    }

    fn waiting() -> Connection {
        let (queued, version) = (START, Version::Http11);
        connection(Phase::Waiting { link: Arc::default(), queued, head_only: false, version, keep_alive: true })
    }

    /// A connection that has just entered its phase expires after `seconds`, no earlier, and then `expected` follows.
    fn check(mut connection: Connection, seconds: u64, expected: Expired) {
        let end = START + Duration::from_secs(seconds);
        connection.deadline = deadline(&connection, START, &TIMEOUTS);
        assert_eq!(connection.deadline, end);
        assert_eq!(expired(&connection, START, &TIMEOUTS), Expired::Later(end));
        assert_eq!(expired(&connection, end, &TIMEOUTS), expected);
        assert_eq!(
            expired(&connection, end + TIMEOUTS.send, &TIMEOUTS),
            match expected {
                Expired::Later(at) => Expired::Later(at + TIMEOUTS.send),
                other => other,
            }
        );
    }

    #[test]
    fn each_phase_has_its_time_and_its_end() {
        check(connection(Phase::Idle), 3, Expired::Close);
        let mut kept = connection(Phase::Idle);
        kept.requests = 1;
        check(kept, 11, Expired::Close);
        check(connection(Phase::Head { scanned: 1 }), 3, Expired::RequestTimeout);
        check(body(false), 5, Expired::RequestTimeout);
        check(body(true), 13, Expired::GatewayTimeout);
        check(waiting(), 13, Expired::GatewayTimeout);
        check(connection(Phase::Lingering { until: START + Duration::from_secs(30) }), 2, Expired::Close);
        check(connection(Phase::Lingering { until: START + Duration::from_secs(1) }), 1, Expired::Close);
        check(connection(Phase::Closing), 7, Expired::Close);
        let responding = || connection(Phase::Responding { exchange: None, after: After::Stream });
        let mut sending = responding();
        sending.sending = true;
        check(sending, 7, Expired::Close);
        // An application with nothing to say: looked at again and again.
        check(responding(), 7, Expired::Later(START + TIMEOUTS.send + TIMEOUTS.send));
    }

    #[test]
    fn a_slow_disk_is_not_the_client_s_fault() {
        let mut slow = body(false);
        let Phase::Body { store, .. } = &mut slow.phase else { unreachable!() };
        store.append(&vec![0; limits::BODY_MEMORY_BYTES_MAX + 1]);
        let spool = store.next_write(false).unwrap();
        store.append(&spool.data);
        assert!(store.is_full());
        check(slow, 5, Expired::GatewayTimeout);
    }

    #[test]
    fn the_time_in_the_queue_and_the_time_of_running_count_apart() {
        let mut connection = waiting();
        connection.deadline = deadline(&connection, START, &TIMEOUTS);
        let started = connection.deadline;
        let Phase::Waiting { link, .. } = &connection.phase else { unreachable!() };
        link.start(started);
        let end = started + TIMEOUTS.request + Duration::from_millis(limits::ANSWER_GRACE_MS);
        assert_eq!(expired(&connection, started + MILLISECOND, &TIMEOUTS), Expired::Later(end));
        assert_eq!(expired(&connection, end, &TIMEOUTS), Expired::GatewayTimeout);
    }
}
