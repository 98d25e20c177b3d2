//! Every bound of the server: its name, its unit, and what a peer sees when it is reached.
//!
//! Values that an operator can set are the *defaults* of flags of the same meaning; the rest is fixed.

// --- Request heads (RFC 9112 §2, §3, §5) -------------------------------------------------------

/// Bytes of request line; past it: 414. Flag `--max-request-line`.
pub const REQUEST_LINE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a whole head, request line and fields; past it: 431. Single sign-on cookies are large. Flag `--max-header-bytes`.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Fields in a head; past it: 431. Flag `--max-headers`.
pub const FIELDS_MAX: usize = 128;
/// Fields httparse is ever given room for: `--max-headers` can't be set higher.
pub const FIELDS_CEILING: usize = 1024;
/// Empty lines in front of a request line that are skipped (RFC 9112 §2.2 asks for one); past it: 400.
pub const LEADING_EMPTY_LINES_MAX: usize = 1;

// --- Request bodies ----------------------------------------------------------------------------

/// Bytes of a request body; past it: 413, before all of it is read. Flag `--max-request-body`. 1 GiB.
pub const REQUEST_BODY_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of a request body kept in memory; past it the body is spooled to an unlinked temporary file.
pub const BODY_MEMORY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a chunk-size line with its extensions; past it: 400.
pub const CHUNK_LINE_BYTES_MAX: usize = 4096;
/// Bytes of a trailer section; past it: 431.
pub const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an unwanted body that are read and dropped so that a connection can live on or an answer be read.
pub const DRAIN_BYTES_MAX: u64 = 256 * 1024;
/// Milliseconds a closing connection goes on reading what the client still sends, so that the answer isn't reset away.
pub const LINGER_MS: u64 = 2_000;
/// Bytes of pipelined requests held while one is being answered; past it reading pauses.
pub const PIPELINE_BYTES_MAX: usize = 64 * 1024;

// --- Responses -----------------------------------------------------------------------------------

/// Bytes of a response body that are copied behind the head; a larger one is sent from Python's memory.
pub const RESPONSE_COPY_BYTES_MAX: usize = 64 * 1024;
/// Bytes a streaming response may have waiting; at it the worker waits, without the GIL.
pub const RESPONSE_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Waiting bytes at which a waiting worker is let go on.
pub const RESPONSE_BUFFER_LOW_BYTES: usize = 64 * 1024;
/// Bytes of a response head (status line and fields) that an application may set; past it: 500 and a line in the error log.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 256 * 1024;
/// Bytes sent from a file in one step, so that one download doesn't hold up the other connections of a reactor.
pub const SENDFILE_STEP_BYTES: usize = 512 * 1024;
/// Segments gathered into one vectored send.
pub const SEND_SEGMENTS_MAX: usize = 16;

// --- Time-outs (defaults; spec A) --------------------------------------------------------------------

/// Seconds for a request head, from its first byte, or from the opening of the connection; past it: 408. Flag `--header-timeout`.
pub const HEADER_TIMEOUT_S: u64 = 2;
/// Seconds without a byte of the request body; past it: 408. Flag `--body-timeout`.
pub const BODY_TIMEOUT_S: u64 = 60;
/// Seconds without a byte of the response taken by the client; past it the connection is closed. Flag `--send-timeout`.
pub const SEND_TIMEOUT_S: u64 = 60;
/// Seconds an idle connection is kept. Flag `--keep-alive`.
pub const KEEP_ALIVE_S: u64 = 60;
/// Seconds a request may wait for a worker, and again run; past it: 504. Flag `--request-timeout`.
pub const REQUEST_TIMEOUT_S: u64 = 60;
/// Seconds in-flight requests are waited for when the server stops. Flag `--graceful-timeout`.
pub const GRACEFUL_TIMEOUT_S: u64 = 30;

// --- The pool ----------------------------------------------------------------------------------------

/// Worker threads a process can be given. Flag `--workers`.
pub const WORKERS_MAX: usize = 4096;
/// Requests that may wait for a worker in a process; past it: 503 with Retry-After.
pub const QUEUE_REQUESTS_MAX: usize = 16 * 1024;
/// Microseconds without a request taken from a queue that isn't empty, after which another worker is woken.
pub const STALL_US: u64 = 500;
/// Microseconds that a reactor leaves requests and answers lying, to deal with many at once, while the workers are behind.
pub const GATHER_US: u64 = 1_000;

// --- Reactors ----------------------------------------------------------------------------------------

/// Reactors a process can be given. Flag `--reactors`.
pub const REACTORS_MAX: usize = 256;
/// Entries of a ring's submission queue; more operations in one turn cost one more system call.
pub const RING_ENTRIES: u32 = 1024;
/// Receive buffers of a ring (a power of two). When none is left, connections wait in order for one.
pub const RECEIVE_BUFFERS: u16 = 256;
/// Bytes of one receive buffer.
pub const RECEIVE_BUFFER_BYTES: usize = 16 * 1024;
/// Bytes received in one step from who sends much.
pub const BULK_BUFFER_BYTES: usize = 64 * 1024;
/// Such steps in one turn of a ring, so that uploads don't hold up the others.
pub const BULK_STEPS_PER_TURN_MAX: usize = 16;
/// Connections waiting to be accepted, per listener (the kernel lowers it to `net.core.somaxconn`).
pub const LISTEN_BACKLOG: i32 = 4096;
/// Bytes read of a kernel table of sockets, to name who holds a taken address; past it nobody is named.
pub const SOCKET_TABLE_BYTES_MAX: u64 = 1024 * 1024;
/// Descriptors of other processes looked at, to name who holds a taken address; past it nobody is named.
pub const SOCKET_HOLDER_LINKS_MAX: usize = 64 * 1024;
/// Milliseconds accepting pauses after the process ran out of descriptors or memory.
pub const ACCEPT_BACKOFF_MS: u64 = 100;
/// Milliseconds of one slot of a reactor's timer wheel: time-outs are late by at most this much.
pub const TIMER_TICK_MS: u64 = 100;
/// Slots of a reactor's timer wheel (a power of two); further deadlines are passed over once per revolution.
pub const TIMER_SLOTS: usize = 1024;
/// Steps of sending files that a reactor takes in one turn; the other downloads wait for the next.
pub const FILE_STEPS_PER_TURN_MAX: usize = 8;
/// Events of one turn of the epoll driver, a step of 16 KiB sent counting as one; the rest waits for the next turn.
pub const EVENTS_PER_TURN_MAX: usize = 512;
/// Connections taken from one listener in one turn of the epoll driver.
pub const ACCEPTS_PER_TURN_MAX: usize = 64;
/// Bytes of the one receive buffer of the drivers that receive when a socket is readable.
pub const SHARED_BUFFER_BYTES: usize = 64 * 1024;
/// Exchanges a reactor keeps for reuse.
pub const EXCHANGES_KEPT_MAX: usize = 1024;
/// Bytes a kept buffer may have grown to; larger ones are given back to the allocator.
pub const BUFFER_KEPT_BYTES_MAX: usize = 64 * 1024;

// --- Configuration (past these: a sentence and exit status 2) --------------------------------------------

/// Bytes of a configuration file. Flag `--config`.
pub const CONFIG_FILE_BYTES_MAX: usize = 1024 * 1024;
/// Addresses a process can listen on: each costs a descriptor for every reactor. Flag `--http-socket`.
pub const LISTENERS_MAX: usize = 64;
/// Networks searched, one after the other, for a peer's address. Flag `--trusted-proxies`.
pub const NETWORKS_MAX: usize = 1024;
/// Seconds any time-out can be set to: a year, so that sums of them can't overflow.
pub const TIMEOUT_S_MAX: u64 = 365 * 24 * 60 * 60;
/// Bytes of request line that must be let through. `--max-request-line` can't be set lower.
pub const REQUEST_LINE_BYTES_FLOOR: usize = 256;
/// Bytes of head that must be let through. `--max-header-bytes` can't be set lower.
pub const HEAD_BYTES_FLOOR: usize = 1024;
/// Bytes of head that a connection is ever given. `--max-header-bytes` and `--max-request-line` can't be set higher.
pub const HEAD_BYTES_CEILING: usize = 1024 * 1024;
/// Bytes of body, 16 TiB: the largest file of ext4. `--max-request-body` can't be set higher.
pub const REQUEST_BODY_BYTES_CEILING: u64 = 16 * 1024 * 1024 * 1024 * 1024;
/// Bytes of a UNIX socket's path, the terminating NUL left out (unix(7), `sun_path`).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

// --- Logs --------------------------------------------------------------------------------------------

/// Bytes of access-log lines a reactor gathers before it hands them to the writer.
pub const ACCESS_LOG_BATCH_BYTES: usize = 32 * 1024;
/// Batches that may wait for the access-log writer; past it lines are dropped and counted.
pub const ACCESS_LOG_BATCHES_MAX: usize = 64;
/// Messages that may wait for the error-log writer; past it messages are dropped and counted.
pub const ERROR_LOG_MESSAGES_MAX: usize = 1024;
/// Bytes of one error-log message; past it the message is cut, and says so.
pub const ERROR_LOG_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Milliseconds a log writer waits before it tries again to write to a non-blocking pipe or terminal that is full.
pub const LOG_RETRY_MS: u64 = 10;
/// Milliseconds between two warnings of dropped lines, and between two looks whether a log file was moved away.
pub const LOG_CHECK_MS: u64 = 1_000;
/// Milliseconds a log that is dropped waits for its last lines to be written; past it they are lost.
pub const LOG_FLUSH_MS: u64 = 1_000;

const _: () = assert!(REQUEST_LINE_BYTES_MAX <= HEAD_BYTES_MAX);
const _: () = assert!(REQUEST_LINE_BYTES_FLOOR <= HEAD_BYTES_FLOOR && HEAD_BYTES_MAX <= HEAD_BYTES_CEILING);
const _: () = assert!(REQUEST_BODY_BYTES_MAX <= REQUEST_BODY_BYTES_CEILING);
const _: () = assert!(RESPONSE_BUFFER_LOW_BYTES < RESPONSE_BUFFER_BYTES_MAX);
const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two());
