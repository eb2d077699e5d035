//! Indices of the per-CPU counters: one row per hook, one column per outcome.
//!
//! The identity that holds at any quiet moment, for every hook: `hit` = the sum of the others.

/// A hook of the kernel side. The number is its row in the counter table and stands in every record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Hook {
    /// `sendto`, also what `send` becomes.
    Sendto = 0,
    /// `sendmsg`.
    Sendmsg = 1,
    /// `sendmmsg`, one hit per message.
    Sendmmsg = 2,
    /// `write`.
    Write = 3,
    /// `writev`.
    Writev = 4,
    /// A TCP connection is opened.
    Connect = 5,
    /// The SDK's exposure function.
    Exposure = 6,
    /// The SDK's click function.
    Click = 7,
    /// A process replaced its program.
    Exec = 8,
    /// A process was forked.
    Fork = 9,
    /// A process ended.
    Exit = 10,
    /// Something was handed to a TLS library.
    TlsWrite = 11,
}

impl Hook {
    /// Every hook, by its number.
    pub const ALL: [Self; 12] = [
        Self::Sendto,
        Self::Sendmsg,
        Self::Sendmmsg,
        Self::Write,
        Self::Writev,
        Self::Connect,
        Self::Exposure,
        Self::Click,
        Self::Exec,
        Self::Fork,
        Self::Exit,
        Self::TlsWrite,
    ];

    /// The hook's name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sendto => "sendto",
            Self::Sendmsg => "sendmsg",
            Self::Sendmmsg => "sendmmsg",
            Self::Write => "write",
            Self::Writev => "writev",
            Self::Connect => "connect",
            Self::Exposure => "exposure",
            Self::Click => "click",
            Self::Exec => "exec",
            Self::Fork => "fork",
            Self::Exit => "exit",
            Self::TlsWrite => "tls_write",
        }
    }

    /// The hook with this number.
    pub fn from_index(index: u32) -> Option<Self> {
        Self::ALL.get(index as usize).copied()
    }
}

/// What became of one hit of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum HitOutcome {
    /// The hook ran. The sum of the others.
    Hit = 0,
    /// A record went to the ring.
    Submitted = 1,
    /// The ring had no room: lost.
    RingFull = 2,
    /// Memory of the traced process could not be read: lost.
    ReadFault = 3,
    /// An id is longer than [`crate::limits::MAX_ID_LEN`]: lost.
    IdTooLong = 4,
    /// Not of a traced process, or it cannot be a message: of no interest.
    Filtered = 5,
    /// More messages in one call than are looked at: lost.
    OutOfBounds = 6,
    /// The table of traced processes is full: everything this process does is lost.
    TargetsFull = 7,
    /// A TLS record, which cannot be read here.
    Tls = 8,
    /// HTTP/2, which is not read.
    Http2 = 9,
}

impl HitOutcome {
    /// Every outcome, by its number.
    pub const ALL: [Self; 10] = [
        Self::Hit,
        Self::Submitted,
        Self::RingFull,
        Self::ReadFault,
        Self::IdTooLong,
        Self::Filtered,
        Self::OutOfBounds,
        Self::TargetsFull,
        Self::Tls,
        Self::Http2,
    ];

    /// The outcomes that lose something somebody may miss.
    pub const LOSSES: [Self; 5] =
        [Self::RingFull, Self::ReadFault, Self::IdTooLong, Self::OutOfBounds, Self::TargetsFull];

    /// The outcome's name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Submitted => "submitted",
            Self::RingFull => "ring_full",
            Self::ReadFault => "read_fault",
            Self::IdTooLong => "id_too_long",
            Self::Filtered => "filtered",
            Self::OutOfBounds => "out_of_bounds",
            Self::TargetsFull => "targets_full",
            Self::Tls => "tls",
            Self::Http2 => "http2",
        }
    }
}

/// Columns of the counter table.
const OUTCOMES: u32 = HitOutcome::Http2 as u32 + 1;
const _: () = assert!(OUTCOMES as usize == HitOutcome::ALL.len());

/// Entries of the counter table.
pub const COUNTER_COUNT: u32 = (Hook::TlsWrite as u32 + 1) * OUTCOMES;
const _: () = assert!(COUNTER_COUNT as usize == Hook::ALL.len() * HitOutcome::ALL.len());

/// Where the counter of a hook's outcome stands in the table.
pub const fn counter_index(hook: Hook, outcome: HitOutcome) -> u32 {
    hook as u32 * OUTCOMES + outcome as u32
}
