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
/// Milliseconds a closing connection waits for more of what the client still sends. That is read and dropped: closed with bytes unread,
/// the connection would be reset, and answers that the client hasn't read yet be lost.
pub const LINGER_MS: u64 = 2_000;
/// Milliseconds it does so in all, however much comes: enough for most uploads to end and their client to read why they were refused.
pub const LINGER_MS_MAX: u64 = 30_000;
/// Milliseconds a connection of a process that drains may be idle; past it, it is closed. A client that is at it sends its next request
/// within that time, and is told in the answer to use another connection; one whose request crosses our close can only guess.
pub const DRAIN_IDLE_MS: u64 = 500;
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
/// Bytes sent from a file in one step, so that one download doesn't hold up the other connections of a reactor. Measured: steps of 512 KiB
/// take 5 % more processor time.
pub const SENDFILE_STEP_BYTES: usize = 2 * 1024 * 1024;
/// The same of a file that isn't in the page cache, and so what the disk thread reads for a download before it sees to the next job. Also
/// how far apart it is looked whether a step is in the page cache.
pub const SENDFILE_COLD_STEP_BYTES: usize = 512 * 1024;
/// Segments gathered into one vectored send.
pub const SEND_SEGMENTS_MAX: usize = 16;

// --- Files --------------------------------------------------------------------------------------------

/// Seconds a client may keep a static file. Flag `--static-max-age`.
pub const STATIC_MAX_AGE_S: u64 = 86_400;
/// Milliseconds a reactor believes what it found under a name; then the file is looked at again.
pub const STATIC_FRESH_MS: u64 = 1_000;
/// Files a reactor knows of; past it the one that wasn't asked for longest is forgotten.
pub const STATIC_FILES_MAX: usize = 4096;
/// Bytes of a file that is kept in memory whole; a larger one is kept open and sent with sendfile(2). Measured (loadtest/sweep.py):
/// of sendfile's processor time, memory takes 0.9 at 32 KiB, 1.1 at 64 KiB, 1.3 at 128 KiB.
pub const STATIC_MEMORY_FILE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of files (and of their rendered heads) that a reactor keeps in memory; past it as with `STATIC_FILES_MAX`.
pub const STATIC_MEMORY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Files a reactor keeps open; past it as with `STATIC_FILES_MAX`.
pub const STATIC_DESCRIPTORS_MAX: usize = 128;
/// Bytes of a file in memory, or of a cached response's body, that are copied behind the head; a larger one is sent from where it
/// is. Measured: 2 % less processor time than a second piece at 1 to 4 KiB, as much at 10, 3 % more at 16.
pub const STATIC_COPY_BYTES_MAX: usize = 8 * 1024;
/// Searches that a reactor has with the disk thread; past it: 503 with Retry-After.
pub const STATIC_SEARCHES_MAX: usize = 1024;
/// Ranges of one request; past it the Range field is of no effect (RFC 9110 §14.2).
pub const STATIC_RANGES_MAX: u64 = 32;
/// Bytes between two ranges of one request up to which they are sent as one: about what the head of a part costs.
pub const STATIC_RANGE_GAP_BYTES: u64 = 80;
/// Static maps, and roots of X-Sendfile: each is tried in turn. Flags `--static-map`, `--sendfile-root`.
pub const STATIC_MAPS_MAX: usize = 256;
/// Fields added to static responses. Flag `--static-header`.
pub const STATIC_HEADERS_MAX: usize = 64;

// --- The response cache ------------------------------------------------------------------------------

/// Bytes of stored responses and their bookkeeping in a process; past it the least recently used go. Flag `--cache-size`. 64 MiB.
pub const CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// One part of so many of `--cache-size` isn't used, so that memory that comes back in pieces doesn't lead above it.
pub const CACHE_RESERVE_SHARE: usize = 16;
/// Bytes of a response, head and body; a larger one isn't stored. Flag `--cache-response-size`.
pub const CACHE_RESPONSE_BYTES_MAX: usize = 1_000_000;
/// Bytes of host and target together; a request with more isn't looked up.
pub const CACHE_KEY_BYTES_MAX: usize = 8 * 1024;
/// Fields of a response; one with more isn't stored.
pub const CACHE_FIELDS_MAX: usize = 128;
/// Bytes of a stored body that is moved into a file in memory (memfd_create(2)) when it is asked for often, and sent from there with
/// sendfile(2); a smaller one stays. Measured: of the processor time of sending it from memory that takes 1.05 at 30 kB, 0.88 at 65 kB, 0.8
/// from 300 to 900 kB.
pub const CACHE_FILE_BYTES_MIN: usize = 64 * 1024;
/// Times that such a body is found before it is moved, and between two attempts: making the file costs what some hits save.
pub const CACHE_FILE_FINDS: u32 = 8;
/// Descriptors that a process has for such files; past it bodies stay where they are.
pub const CACHE_DESCRIPTORS_MAX: usize = 1024;
/// One part of so many of the limit on open files (`ulimit -n`) may be used for them, if that is less.
pub const CACHE_DESCRIPTORS_SHARE: usize = 8;
/// Stored responses for one URL that `Vary` tells apart; past it the oldest goes.
pub const CACHE_VARIANTS_MAX: usize = 64;
/// Parts of the cache, each with a lock; fewer where they would hold less than eight of the largest responses.
pub const CACHE_PARTS_MAX: usize = 16;
/// Requests of a process that wait for another one's answer; past it they ask the application themselves.
pub const CACHE_WAITERS_MAX: usize = 16 * 1024;
/// Milliseconds that requests go on waiting for an answer that has begun to come in pieces, since how fast it comes is up to the client
/// that takes it; past it they ask the application themselves.
pub const CACHE_PIECES_WAIT_MS: u64 = 1_000;
/// Stale responses that a reactor renews at a time while it goes on sending them; past it they are renewed by a later request.
pub const CACHE_REFRESHES_MAX: usize = 64;
/// Words (8 bytes) that say when something was invalidated; keys share them.
pub const CACHE_EPOCHS: usize = 64 * 1024;
/// One part of so many of `--cache-size` is for the copies that processes which share a cache have of what they use; the rest is shared.
pub const CACHE_COPIES_SHARE: usize = 8;
/// Places of the shared index, a power of two, where a stored response may be: past it one that is there already goes.
pub const CACHE_WINDOW: usize = 64;
/// As `CACHE_VARIANTS_MAX`, where processes share a cache: a part of the places, so that one URL doesn't push out others.
pub const CACHE_SHARED_VARIANTS_MAX: usize = 32;
/// Words that remember what isn't stored; keys push each other out.
pub const CACHE_PASSING_MAX: usize = 4096;
/// Seconds for which requests don't wait for each other after an answer wasn't stored.
pub const CACHE_PASSING_S: u64 = 60;

// --- Blocked clients (spec B §16) -------------------------------------------------------------------------

/// Clients that can be blocked at a time, in a process; past it no further one is, with a line in the error log.
pub const BLOCKED_CLIENTS_MAX: usize = 64 * 1024;
/// Seconds a client can be blocked for: a year.
pub const BLOCK_S_MAX: u64 = TIMEOUT_S_MAX;
/// Seconds a request of a blocked client is held before it is answered 429.
pub const BLOCK_HOLD_S_MAX: u64 = 25;
/// Requests of blocked clients held at a time, in a process; past it they are answered at once.
pub const BLOCK_HELD_MAX: usize = 100;
/// Seconds between two looks for clients whose time is over.
pub const BLOCK_SWEEP_S: u64 = 60;

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
/// Seconds a process may take to load the application and to accept connections; past it, it is asked for its stacks and killed.
/// Flag `--start-timeout`.
pub const START_TIMEOUT_S: u64 = 120;
/// Seconds in-flight requests are waited for when the server stops. Flag `--graceful-timeout`.
pub const GRACEFUL_TIMEOUT_S: u64 = 30;

// --- Processes ---------------------------------------------------------------------------------------

/// Processes there can be, asked for or added by SIGTTIN; past it SIGTTIN is refused. Flag `--processes`.
pub const PROCESSES_MAX: usize = 256;
/// Descriptors to which a lower soft limit (`ulimit -Sn`) is raised at start, if the hard one allows; past the limit new connections
/// wait.
pub const DESCRIPTORS_WANTED: u64 = 65_536;
/// Rows of the board, one for each process alive: those that serve, their successors, and as many that are leaving. Past it a
/// process isn't started until another has ended.
pub const WORKER_ROWS_MAX: usize = 4 * PROCESSES_MAX;
/// Milliseconds after which a process that died is started again, the first time; it doubles with each death that follows.
pub const RESTART_DELAY_MS: u64 = 100;
/// Milliseconds after which it is tried again at the latest.
pub const RESTART_DELAY_MS_MAX: u64 = 30_000;
/// Seconds a process must have served before it died for its earlier deaths to be forgotten.
pub const STABLE_S: u64 = 60;
/// Looks of the supervisor, one a second, at a heartbeat that doesn't change; past it the process is killed and started again.
pub const HEARTBEATS_MISSED_MAX: u32 = 30;
/// Milliseconds between SIGABRT, which makes a process that hangs write its threads' stacks, and SIGKILL.
pub const ABORT_MS: u64 = 2_000;
/// Milliseconds beyond `--graceful-timeout` that a process may take to end; past it, it is killed.
pub const LEAVE_MS: u64 = 5_000;
/// Bytes of one message between a worker and its supervisor; a traceback that is longer is cut.
pub const CHANNEL_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Requests a process can be allowed. `--max-requests` and `--max-requests-jitter` can't be set higher.
pub const MAX_REQUESTS_CEILING: usize = 1_000_000_000;

// --- The pool ----------------------------------------------------------------------------------------

/// Worker threads a process can be given, replacements of stuck ones not counted. Flags `--workers`, `--max-workers`.
pub const WORKERS_MAX: usize = 4096;
/// Requests that may wait for a worker in a process; past it the one worth least is answered 504 once it has waited for
/// [`QUEUE_BURST_MS`]. Flag `--queue`; when that isn't given, this or the number of workers there may be, if that is more.
pub const QUEUE_REQUESTS: usize = 128;
/// Requests past which the one worth least is answered 504 at once, or `--queue`, if that is more.
pub const QUEUE_REQUESTS_MAX: usize = 16 * 1024;
/// Milliseconds between `--request-timeout` and the server's own 504 for a request that runs: the interrupted handler may answer
/// in that time, with a 504 or whatever it likes.
pub const ANSWER_GRACE_MS: u64 = 500;
/// Milliseconds after the interruption at which a worker that still runs the same request counts as stuck and is replaced.
pub const STUCK_GRACE_MS: u64 = 1_000;
/// Milliseconds the watchdog waits in vain for the GIL before it writes all stacks to the error log.
pub const GIL_SILENT_MS: u64 = 2_000;
/// Milliseconds the watchdog waits in vain for the GIL, with a request overdue, before it gives the process up.
pub const GIL_LOST_MS: u64 = 5_000;
/// Threads whose stacks are written to the error log when requests are interrupted; of the others there is a line each.
pub const STACKS_LOGGED_MAX: usize = 16;
/// Milliseconds between two times that stacks are written to the error log; in between there is a line for each request.
pub const STACKS_INTERVAL_MS: u64 = 1_000;
/// Times that one lock of `logging` is released after an interrupted request (its locks may be taken many times by one thread).
pub const LOGGING_RELEASES_MAX: u32 = 50;
/// Worker threads started in one step while a pool grows. Flag `--max-workers`.
pub const POOL_STEP_MAX: usize = 64;
/// Seconds a worker above `--workers` rests before it ends. Flag `--max-workers`.
pub const POOL_IDLE_S: u64 = 10;
/// Worker threads above `--workers` that are ended in one second.
pub const POOL_SHRINK_MAX: usize = 64;
/// Client addresses listed in the statistics (SIGUSR2); of the others there is the number.
pub const ADDRESSES_SHOWN_MAX: usize = 100;
/// Requests that `--queue` can be set to at most.
pub const QUEUE_REQUESTS_CEILING: usize = 256 * 1024;
/// Milliseconds within which a burst larger than `--queue` may be worked off without anybody being answered 504.
pub const QUEUE_BURST_MS: u64 = 100;
/// Milliseconds after which waiting requests that can't be taken while others run are looked at again.
pub const QUEUE_HELD_MS: u64 = 20;
/// Sources of requests (IPv4 addresses, IPv6 /64s) whose history is kept while nothing of them waits or runs; past it the one idle
/// for longest is forgotten, as if it had never asked.
pub const SOURCES_IDLE_MAX: usize = 16 * 1024;
/// Recent requests that are held against a source: it takes an hour to be forgotten, however much it has asked.
pub const SOURCE_HISTORY_MAX: u64 = 3_600;
/// Routes whose cost is remembered for `--priority-by-cost`; past it routes take turns.
pub const ROUTES_MAX: usize = 4096;
/// Milliseconds of waiting for which a level of cost wears off: after eight of them cost counts no more.
pub const COST_WEARS_OFF_MS: u64 = 250;
/// Prefixes, each compared with the path of every request. Flag `--priority-prefix`.
pub const PRIORITY_PREFIXES_MAX: usize = 256;
/// What a prefix can add to a priority, or take off.
pub const PRIORITY_PREFIX_POINTS_MAX: i32 = 100_000;
/// Milliseconds for which workers must not have come to the end of the queue before `--shed` takes effect; also what Retry-After says.
pub const SHED_INTERVAL_MS: u64 = 1_000;
/// Milliseconds a request may wait from then on; past it: 503 with Retry-After.
pub const SHED_WAIT_MS: u64 = 500;
/// Requests parked in a process; past it: 503 with Retry-After, and a line in the error log.
pub const PARKED_REQUESTS_MAX: usize = 256 * 1024;
/// Channels that a request can be parked on; past it: 500, and a line in the error log.
pub const PARK_CHANNELS_MAX: usize = 16;
/// Bytes of their names; past it: 500, and a line in the error log.
pub const PARK_CHANNELS_BYTES_MAX: usize = 256;
/// Seconds a parked request waits when `X-WSGo-Park-Timeout` doesn't say how long; then: 204.
pub const PARK_TIMEOUT_S: u64 = 7_200;
/// Woken requests that a reactor takes care of in one turn; the others wait for the next.
pub const WAKES_PER_TURN_MAX: usize = 1024;
/// Bytes of a notice, channels and argument; past it `notify_parked` raises ValueError.
pub const NOTICE_BYTES_MAX: usize = 256 * 1024;
/// Notices remembered for requests that are about to be parked; past it a request that was started before them is run again.
pub const NOTICES_MAX: usize = 4096;
/// Bytes of their texts.
pub const NOTICES_BYTES_MAX: usize = 1024 * 1024;
/// Microseconds without a request taken from a queue that isn't empty, after which another worker is woken.
pub const STALL_US: u64 = 500;
/// Microseconds without a request taken while one waits that is worth far more than one that runs, after which another worker is
/// woken for it. Flag `--priority`.
pub const URGENT_US: u64 = 100;
/// Microseconds after which CPython makes a thread drop the GIL that another one waits for, unless told otherwise.
pub const SWITCH_DEFAULT_US: u64 = 5_000;
/// The same while requests of little worth run. Shorter: one worth more waits less; longer: threads that compute lose less time to
/// switching. Flag `--priority`.
pub const SWITCH_SHORT_US: u64 = 250;
/// Milliseconds without such a request after which the default holds again.
pub const SWITCH_SHORT_MS: u64 = 1_000;
/// Milliseconds without a request taken, though some wait, after which a process leaves new connections to the others.
pub const STALLED_MS: u64 = 100;
/// Milliseconds between two looks, meanwhile, whether the others take them.
pub const ACCEPT_ASIDE_MS: u64 = 10;
/// Connections accepted at such a look, if nobody has taken them.
pub const ACCEPTS_ASIDE_MAX: usize = 8;
/// Microseconds that a reactor leaves requests and answers lying, to deal with many at once, while the workers are behind.
pub const GATHER_US: u64 = 1_000;

// --- Background jobs ---------------------------------------------------------------------------------

/// Jobs (cron and timers) that an application can register; past it: `RuntimeError` in the application.
pub const BACKGROUND_JOBS_MAX: usize = 1024;
/// Seconds a background job may run; past it `RequestTimeoutException` is raised in it. Flag `--background-timeout`.
pub const BACKGROUND_TIMEOUT_S: u64 = 1800;
/// Milliseconds of the shortest period of a timer; below it: `ValueError` in the application.
pub const TIMER_PERIOD_MS_MIN: u64 = 10;
/// Seconds after which the clock and the time zone are looked at again, in case somebody has set them.
pub const BACKGROUND_CLOCK_CHECK_S: u64 = 60;

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
/// Bytes of files that a ring sends in one turn (the step in which they are reached is finished); the other downloads wait for the next.
pub const FILE_BYTES_PER_TURN_MAX: usize = 4 * 1024 * 1024;
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
/// Milliseconds between two warnings of dropped lines, and between two looks whether a log file was moved away.
pub const LOG_CHECK_MS: u64 = 1_000;
/// Milliseconds a log that is dropped waits for its last lines to be written; past it they are lost.
pub const LOG_FLUSH_MS: u64 = 1_000;

// --- Housekeeping ------------------------------------------------------------------------------------

/// Bytes of a pid file; a longer one isn't a pid file, and the server doesn't start. Flag `--pid`.
pub const PID_FILE_BYTES_MAX: u64 = 32;
/// Times a server tries to put its pid file where others keep putting theirs; past it the server doesn't start.
pub const PID_FILE_ATTEMPTS_MAX: usize = 8;
/// Milliseconds systemd may take to receive a message; past it the message is lost, with a warning.
pub const NOTIFY_SEND_MS: u64 = 1_000;
/// Bytes of the status that systemd is told; the rest is cut off.
pub const NOTIFY_STATUS_BYTES_MAX: usize = 256;
/// Bytes of a path that a worker reports for watching, its end mark included (PIPE_BUF: such a write is never torn); a longer
/// one isn't watched.
pub const WATCHED_PATH_BYTES_MAX: usize = 4096;
/// Directories watched for `--reload`; past it others aren't watched, with a warning.
pub const WATCHED_DIRECTORIES_MAX: usize = 8192;
/// Names of single files watched in one directory; past it they aren't, unless they are Python's.
pub const WATCHED_NAMES_MAX: usize = 4096;
/// Events of watched directories that are read in one turn; the others wait for the next.
pub const WATCH_EVENTS_PER_TURN_MAX: usize = 1024;
/// Milliseconds without another change after which a change counts as complete: editors and checkouts write in steps.
pub const RELOAD_QUIET_MS: u64 = 150;
/// Milliseconds after the first change at which the application is loaded anew even though changes go on.
pub const RELOAD_DELAY_MS_MAX: u64 = 2_000;
/// Milliseconds between two looks whether a watched directory that was removed is there again.
pub const WATCH_RETRY_MS: u64 = 300;
/// Changed paths that the error log names for one reload; the others are counted.
pub const RELOAD_PATHS_NAMED_MAX: usize = 3;

const _: () = assert!(REQUEST_LINE_BYTES_MAX <= HEAD_BYTES_MAX);
const _: () = assert!(REQUEST_LINE_BYTES_FLOOR <= HEAD_BYTES_FLOOR && HEAD_BYTES_MAX <= HEAD_BYTES_CEILING);
const _: () = assert!(REQUEST_BODY_BYTES_MAX <= REQUEST_BODY_BYTES_CEILING);
const _: () = assert!(RESPONSE_BUFFER_LOW_BYTES < RESPONSE_BUFFER_BYTES_MAX);
const _: () = assert!(CACHE_FILE_BYTES_MIN > STATIC_COPY_BYTES_MAX);
const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two());
