//! The way out: from a worker's reply to bytes in the kernel's hands, and a line in the log.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

use super::Reactor;
use super::conn::{After, Phase};
use super::connections::has_unread;
use super::exchange::{End, Exchange, Link, Peer, Special, TurnedAway};
use super::http1::{Field, Head, Version};
use crate::config::Network;
use crate::limits;
use crate::observe::access_log::Line;
use crate::observe::client::{Client, client};
use crate::reactor::{Driver, Outgoing, Token, clock, file};

/// How long a line of the access log may wait for company.
const LOG_DELAY: Duration = Duration::from_millis(200);
/// nginx's code, for the log only, for a client that left before there was an answer.
pub(super) const CLIENT_CLOSED_REQUEST: u16 = 499;

impl<D: Driver> Reactor<D> {
    /// A worker has answered.
    pub(super) fn reply(&mut self, exchange: Box<Exchange>) {
        self.block_as_told(&exchange);
        let Some(exchange) = self.reply_passes(exchange) else { return };
        if !self.is_awaited(&exchange) {
            self.unwanted(exchange);
            return;
        }
        if exchange.reply.status == 0 {
            self.unanswered(exchange);
            return;
        }
        let names_a_file = |special: &Special| special.sendfile.is_some() || special.accel_redirect.is_some();
        if exchange.reply.special.as_deref().is_some_and(names_a_file) {
            self.send_named(exchange);
            return;
        }
        if exchange.reply.special.as_deref().is_some_and(|special| special.park.is_some()) {
            self.park(exchange);
            return;
        }
        self.begin_response(exchange);
    }

    /// Sends the reply of a request whose connection has nothing else to send.
    pub(super) fn begin_response(&mut self, mut exchange: Box<Exchange>) {
        let token = exchange.token;
        let serving = !self.is_draining();
        let mut outgoing = self.outgoing();
        std::mem::swap(&mut *outgoing, &mut *exchange.reply.outgoing);
        let connection = &mut self.connections[token.slot as usize];
        let after = match exchange.reply.end {
            End::Complete if exchange.reply.keep_alive && !connection.is_exhausted() => After::KeepAlive,
            // RFC 9112 §9.6: what the client sends meanwhile must not reset the answer away. A drain isn't held up for that.
            End::Complete => After::Close { linger: exchange.goes_on && serving },
            End::Streaming => {
                exchange.link.count(outgoing.remaining());
                After::Stream
            }
            End::Abort => After::Cut,
        };
        connection.phase = Phase::Responding { exchange: Some(exchange), after };
        self.entered(token);
        self.send(token, outgoing);
        self.rearm(token);
    }

    /// An answer that nobody waits for: the client has gone, or was told 504. The log gets what it was told, unless it has that already.
    pub(super) fn unwanted(&mut self, mut exchange: Box<Exchange>) {
        exchange.reply.status = exchange.link.answered().unwrap_or(CLIENT_CLOSED_REQUEST);
        if !exchange.link.is_logged() {
            self.log_exchange(&exchange);
        }
        self.give(exchange);
    }

    /// A worker has given a request back without an answer.
    pub(super) fn unanswered(&mut self, mut exchange: Box<Exchange>) {
        let token = exchange.token;
        let (status, sentence, extra) = match (exchange.turned_away, exchange.link.started()) {
            (Some(TurnedAway::Evicted), _) => (504, "too many requests were waiting", ""),
            (Some(TurnedAway::Shed), _) => (503, "the server has more to do than it can", "Retry-After: 1\r\n"),
            (None, None) => (504, "no worker was free in time", ""),
            (None, Some(_)) => (500, "the request could not be run", ""),
        };
        self.figures.drops += u64::from(exchange.turned_away.is_some());
        exchange.reply.status = status;
        self.log_exchange(&exchange);
        self.give(exchange);
        self.answer(token, status, sentence, extra);
    }

    /// A streaming response has more.
    pub(super) fn stream(&mut self, token: Token) {
        let Some(connection) = self.get(token) else { return self.refresh_streams(token) };
        if !connection.sending && connection.queued.is_none() {
            self.all_sent(token);
        }
    }

    /// Gives `outgoing` to the driver, or queues it behind what the driver has.
    pub(super) fn send(&mut self, token: Token, mut outgoing: Box<Outgoing>) {
        let Some(connection) = self.connections.get_mut(token.slot as usize).filter(|c| c.token == token) else {
            self.recycle(outgoing);
            return;
        };
        if connection.sending || connection.warming {
            // Only an interim response can be under way when a response comes.
            debug_assert!(connection.queued.is_none(), "one response at a time");
            connection.queued = Some(outgoing);
        } else if outgoing.is_empty() {
            outgoing.clear();
            self.recycle(outgoing);
            self.all_sent(token);
        } else if let Some((file, offset, length)) = cold_stretch(&mut outgoing) {
            connection.disk_jobs += 1;
            connection.warming = true;
            self.shared.disk.warm(&self.mailbox, token, file, offset, length);
            connection.queued = Some(outgoing);
        } else {
            connection.sending = true;
            self.driver.send(connection.fd(), token, outgoing);
        }
    }

    /// What is to be sent next is in the page cache now, or will be reported missing by sendfile.
    pub(super) fn warmed(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token.slot as usize).filter(|c| c.token == token) else {
            return;
        };
        connection.disk_jobs -= 1;
        connection.warming = false;
        match connection.queued.take() {
            Some(outgoing) if !matches!(connection.phase, Phase::Closing) => {
                connection.sending = true;
                self.driver.send(connection.fd(), token, outgoing);
                // The client's time begins now: the disk's isn't counted.
                self.entered(token);
            }
            _ => self.try_remove(token),
        }
    }

    pub(super) fn sent(&mut self, token: Token, mut outgoing: Box<Outgoing>, result: io::Result<usize>) {
        let Some(connection) = self.get(token) else {
            self.recycle(outgoing);
            return;
        };
        connection.sending = false;
        let sent = *result.as_ref().unwrap_or(&0) as u64;
        let closing = matches!(connection.phase, Phase::Closing);
        // Nothing is queued behind a response. What was sent then doesn't count as part of one, and isn't followed by parts of one.
        let interim = connection.queued.is_some();
        self.figures.bytes_sent += sent;
        match result {
            Ok(bytes) if !closing => {
                let whole = bytes as u64 == outgoing.remaining();
                self.entered(token);
                if !interim {
                    self.made_room(token, bytes);
                }
                if whole {
                    self.keep_buffer(token, &mut outgoing);
                    self.recycle(outgoing);
                    self.all_sent(token);
                } else {
                    self.only_workers_traffic = false;
                    outgoing.advance(bytes as u64);
                    if !interim {
                        self.collect(token, &mut outgoing);
                    }
                    self.send(token, outgoing);
                }
            }
            Ok(_) => self.recycle(outgoing),
            Err(error) => {
                tracing::debug!("a response could not be sent: {error}");
                self.recycle(outgoing);
                self.lost(token);
            }
        }
        self.try_remove(token);
    }

    /// Leaves the buffer of a response that was sent to its exchange, for the next one.
    fn keep_buffer(&mut self, token: Token, outgoing: &mut Outgoing) {
        let Some(mut buffer) = outgoing.finish() else { return };
        let Some(connection) = self.get(token) else { return };
        let Phase::Responding { exchange: Some(exchange), .. } = &mut connection.phase else { return };
        if buffer.capacity() <= limits::BUFFER_KEPT_BYTES_MAX {
            buffer.clear();
            exchange.reply.spare = buffer;
        }
    }

    /// Tells a worker that waits for room in a streaming response that some was sent.
    fn made_room(&mut self, token: Token, bytes: usize) {
        let Some(connection) = self.get(token) else { return };
        let Phase::Responding { exchange: Some(exchange), .. } = &connection.phase else { return };
        if exchange.reply.end != End::Streaming {
            return;
        }
        if let Some(worker) = exchange.link.sent(bytes) {
            self.shared.pool.unpark(worker);
        }
    }

    /// Moves what a streaming response has handed over into `outgoing`, and notes its end.
    fn collect(&mut self, token: Token, outgoing: &mut Outgoing) {
        let serving = !self.is_draining();
        let Some(connection) = self.get(token) else { return };
        let exhausted = connection.is_exhausted();
        let Phase::Responding { exchange: Some(exchange), after } = &mut connection.phase else { return };
        if *after != After::Stream {
            return;
        }
        let (before, ticket) = (outgoing.segments(), exchange.link.ticket());
        let end = exchange.link.collect(outgoing);
        match end {
            Some(End::Complete) if exchange.reply.keep_alive && !exhausted => *after = After::KeepAlive,
            Some(End::Complete) => *after = After::Close { linger: exchange.goes_on && serving },
            Some(End::Abort) => *after = After::Cut,
            Some(End::Streaming) | None => {}
        }
        if ticket != 0 {
            self.gather(token, outgoing, before, end);
        }
    }

    /// Everything the connection had to send is sent: what follows?
    fn all_sent(&mut self, token: Token) {
        let Some(connection) = self.get(token) else { return };
        if let Some(queued) = connection.queued.take() {
            self.send(token, queued);
            return;
        }
        let Phase::Responding { after, .. } = connection.phase else { return };
        if after == After::Stream {
            let mut outgoing = self.outgoing();
            self.collect(token, &mut outgoing);
            let ended =
                self.get(token).is_some_and(|c| !matches!(c.phase, Phase::Responding { after: After::Stream, .. }));
            if ended || !outgoing.is_empty() {
                // The client's time begins now: until here the application was waited for.
                self.entered(token);
                self.send(token, outgoing);
            } else {
                self.recycle(outgoing);
            }
            return;
        }
        if after == After::Cut {
            return self.cut(token);
        }
        self.finish_response(token, after);
    }

    /// Ends the connection before its response is complete, so that the client can tell: to HTTP/1.0 that takes a reset. To others the end
    /// is enough, and earlier answers that the client hasn't read yet must not be lost with it.
    fn cut(&mut self, token: Token) {
        let serving = !self.is_draining();
        match self.get(token).map(|connection| &connection.phase) {
            Some(Phase::Responding { exchange: Some(exchange), .. }) if exchange.head.version == Version::Http11 => {
                self.finish_response(token, After::Close { linger: serving });
            }
            // While it is still responding: so the client is told.
            _ => self.close(token),
        }
    }

    fn finish_response(&mut self, token: Token, after: After) {
        let draining = self.is_draining();
        let Some(connection) = self.get(token) else { return };
        let Phase::Responding { exchange, .. } = std::mem::replace(&mut connection.phase, Phase::Idle) else { return };
        let (ended, pipelined) = (connection.ended, !connection.pending.is_empty());
        // A drain isn't held up by clients that may be sending, only by those that have.
        let unread = draining && matches!(after, After::Close { .. }) && has_unread(&connection.socket);
        if let Some(exchange) = exchange {
            self.log_exchange(&exchange);
            self.give(exchange);
        }
        match after {
            // A client that has ended its side may have sent requests before that, and still read. One that was told that its
            // connection stays, before a drain began, may be sending the next already.
            After::KeepAlive if pipelined || !ended => {
                if pipelined {
                    self.ready.push_back(token);
                }
                self.entered(token);
                self.rearm(token);
            }
            After::Close { linger } if !ended && (linger || pipelined || unread) => self.linger(token),
            After::KeepAlive | After::Close { .. } | After::Cut | After::Stream => self.close(token),
        }
    }

    /// Ends our side and goes on reading for a while: a close with bytes unread would reset the answer away (RFC 9112 §9.6).
    fn linger(&mut self, token: Token) {
        let until = self.now + Duration::from_millis(limits::LINGER_MS_MAX);
        let Some(connection) = self.get(token) else { return };
        let shut = SockRef::from(&connection.socket).shutdown(Shutdown::Write);
        connection.phase = Phase::Lingering { until };
        connection.pending = Vec::new();
        if shut.is_err() {
            self.lost(token);
            return;
        }
        self.entered(token);
        self.rearm(token);
    }

    /// An empty queue for something to send.
    pub(super) fn outgoing(&mut self) -> Box<Outgoing> {
        self.outgoings.pop().unwrap_or_default()
    }

    /// Takes a queue back.
    pub(super) fn recycle(&mut self, mut outgoing: Box<Outgoing>) {
        outgoing.clear();
        if self.outgoings.len() < limits::EXCHANGES_KEPT_MAX {
            self.outgoings.push(outgoing);
        }
    }

    /// One line in the access log for a request that was answered.
    pub(super) fn log_exchange(&mut self, exchange: &Exchange) {
        self.log_line(exchange, exchange.reply.status, exchange.reply.worker);
    }

    /// The line of a request that its worker still runs, and may never give back. If it can't be seen just now, it is logged when it
    /// comes back.
    pub(super) fn log_unanswered(&mut self, link: &Arc<Link>, status: u16) {
        let shared = Arc::clone(&self.shared);
        if shared.pool.look_at(link, |exchange, worker| self.log_line(exchange, status, worker)) {
            link.set_logged();
        }
    }

    fn log_line(&mut self, exchange: &Exchange, status: u16, worker: u32) {
        #[cfg(test)]
        self.logged.push((
            String::from_utf8_lossy(exchange.head.find(b"user-agent").unwrap_or_default()).into_owned(),
            status,
        ));
        let (Some(log), now) = (&mut self.log, self.now) else { return };
        self.log_due.get_or_insert(now + LOG_DELAY);
        let head = &exchange.head;
        let client = exchange.client.unwrap_or_else(|| client_of(exchange.peer, head, &self.shared.trusted_proxies));
        let line = Line {
            client: client.address,
            process: self.shared.process,
            worker,
            method: head.get(head.method),
            target: head.get(head.target),
            version: head.version.as_str().as_bytes(),
            status,
            referer: head.find(b"referer"),
            user_agent: head.find(b"user-agent"),
            wall: self.now.since(exchange.received),
            cpu: exchange.reply.cpu,
            priority: exchange.priority,
        };
        let time = self.log_time.at(clock::unix_seconds(), clock::local_offset);
        line.append(time, log.line_buffer());
    }
}

/// What has to be read from a disk before the next step of a response that goes on with a file, if anything. Bounds the step to what was
/// looked at.
fn cold_stretch(outgoing: &mut Outgoing) -> Option<(Arc<File>, u64, u64)> {
    let (_, range) = outgoing.leading_file()?;
    let within = |most: usize| range.length.min(most as u64);
    if range.memory.is_some() || file::is_resident(&range.file, range.offset, within(limits::SENDFILE_STEP_BYTES)) {
        outgoing.set_file_step(limits::SENDFILE_STEP_BYTES);
        return None;
    }
    let (file, offset, length) = (Arc::clone(&range.file), range.offset, within(limits::SENDFILE_COLD_STEP_BYTES));
    outgoing.set_file_step(limits::SENDFILE_COLD_STEP_BYTES);
    (!file::is_resident(&file, offset, length)).then_some((file, offset, length))
}

/// Who a request is from: worked out once for each.
pub(super) fn client_of(peer: Peer, head: &Head, trusted: &[Network]) -> Client {
    let peer = match peer {
        Peer::Tcp(address, _) => Some(address),
        Peer::Unix => None,
    };
    let named = |field: &&Field| head.get(field.name).eq_ignore_ascii_case(b"x-forwarded-for");
    let mut lines = head.fields.iter().filter(named);
    let Some(first) = lines.next() else { return client(peer, None, trusted) };
    let mut joined = head.get(first.value).to_vec();
    for line in lines {
        joined.push(b',');
        joined.extend_from_slice(head.get(line.value));
    }
    client(peer, Some(&joined), trusted)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::fs::{Advice, fadvise};

    use super::*;
    use crate::reactor::{FileRange, Segment};

    #[test]
    fn a_step_goes_no_further_than_what_is_in_memory() {
        const STEP: u64 = limits::SENDFILE_STEP_BYTES as u64;
        const COLD: u64 = limits::SENDFILE_COLD_STEP_BYTES as u64;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'x'; 2 * STEP as usize]).unwrap();
        let file = Arc::new(file);
        let next = |offset: u64| {
            let mut outgoing = Outgoing::new();
            outgoing.push(Segment::File(FileRange {
                file: Arc::clone(&file),
                offset,
                length: 2 * STEP - offset,
                memory: None,
            }));
            let cold = cold_stretch(&mut outgoing).map(|(_, offset, length)| (offset, length));
            (cold, outgoing.file_step() as u64)
        };
        assert_eq!(next(0), (None, STEP), "it was written just now");
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        // The kernel reads no further than it is told to.
        fadvise(&file, 0, None, Advice::Random).unwrap();
        if file::is_resident(&file, STEP, STEP) {
            // A file system in memory.
            return;
        }
        assert_eq!(next(0), (Some((0, COLD)), COLD));
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut vec![0; 2 * COLD as usize], 0).unwrap();
        assert_eq!(next(0), (None, COLD), "a part of it is there");
    }
}
