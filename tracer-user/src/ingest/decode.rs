//! Bytes of the ring to checked records: length, version, kind, then the fields.
//!
//! Nothing is cast. A record that is not what it says it is becomes a [`DecodeError`] and is counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Buf as _;
use tracer_common::{
    counters::Hook,
    limits::{ID_BUFFER_LEN, MAX_ID_LEN, PATH_LEN},
    record::{
        FAMILY_INET, FAMILY_INET6, FAMILY_NONE, KIND_CONNECT, KIND_EXEC, KIND_EXIT, KIND_FORK, KIND_SDK,
        KIND_SEND, SEND_MORE, SEND_NEW, SEND_POSITIONED, VERSION,
    },
};

use super::http::Send;

/// Why a record was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than its kind has.
    #[error("the record is cut short")]
    TooShort,
    /// Made by another build of the kernel side.
    #[error("the record has the version {0}, not {VERSION}")]
    Version(u16),
    /// A kind that does not exist.
    #[error("unknown kind of record {0}")]
    Kind(u16),
    /// A hook that does not exist.
    #[error("unknown hook {0}")]
    Hook(u32),
    /// A length that goes beyond its field.
    #[error("a length of {0} bytes goes beyond its field")]
    Length(u32),
}

/// The common part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which hook made it.
    pub hook: Hook,
    /// Kernel time, `CLOCK_MONOTONIC`, in nanoseconds.
    pub monotonic_ns: u64,
    /// Id of the process's cgroup.
    pub cgroup_id: u64,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Attach cookie of the probe.
    pub cookie: u64,
}

/// A record, borrowed from the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The common part.
    pub head: Head,
    /// What it says.
    pub body: Body<'a>,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// A piece of what was sent on a connection.
    Send(Send<'a>),
    /// A call of an SDK function.
    Sdk {
        /// Request id.
        request_id: &'a [u8],
        /// Item id.
        item_id: &'a [u8],
    },
    /// A TCP connection was opened, or something was sent to a collector.
    Connect {
        /// Where to.
        peer: Option<SocketAddr>,
    },
    /// The process replaced its program.
    Exec {
        /// The path it gave.
        path: &'a [u8],
    },
    /// The process made a child.
    Fork {
        /// The child's process id.
        child_pid: u32,
    },
    /// The process's main thread ended.
    Exit,
}

/// Checks and reads one record.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let mut cursor = Cursor { bytes };
    let kind = cursor.u16()?;
    let version = cursor.u16()?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let hook = cursor.u32()?;
    let head = Head {
        hook: Hook::from_index(hook).ok_or(DecodeError::Hook(hook))?,
        monotonic_ns: cursor.u64()?,
        cgroup_id: cursor.u64()?,
        pid: cursor.u32()?,
        tid: cursor.u32()?,
        cookie: cursor.u64()?,
    };
    let body = match kind {
        KIND_SEND => Body::Send(cursor.send()?),
        KIND_SDK => {
            let request_id_len = cursor.u32()?;
            let item_id_len = cursor.u32()?;
            for len in [request_id_len, item_id_len] {
                if len as usize > MAX_ID_LEN {
                    return Err(DecodeError::Length(len));
                }
            }
            Body::Sdk {
                request_id: cursor.prefix(ID_BUFFER_LEN, request_id_len)?,
                item_id: cursor.prefix(ID_BUFFER_LEN, item_id_len)?,
            }
        }
        KIND_CONNECT => Body::Connect { peer: cursor.peer()? },
        KIND_EXEC => {
            let len = cursor.u32()?;
            cursor.u32()?;
            let path = cursor.prefix(PATH_LEN, len)?;
            // The kernel's copy counts its terminating zero.
            Body::Exec { path: path.strip_suffix(b"\0").unwrap_or(path) }
        }
        KIND_FORK => Body::Fork { child_pid: cursor.u32()? },
        KIND_EXIT => Body::Exit,
        other => return Err(DecodeError::Kind(other)),
    };
    Ok(Record { head, body })
}

/// What is left of a record.
struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.bytes.try_get_u16_ne().map_err(|_| DecodeError::TooShort)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.bytes.try_get_u32_ne().map_err(|_| DecodeError::TooShort)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.bytes.try_get_u64_ne().map_err(|_| DecodeError::TooShort)
    }

    /// A field of `field_len` bytes of which the first `used_len` count.
    fn prefix(&mut self, field_len: usize, used_len: u32) -> Result<&'a [u8], DecodeError> {
        let (field, rest) = self.bytes.split_at_checked(field_len).ok_or(DecodeError::TooShort)?;
        self.bytes = rest;
        field.get(..used_len as usize).ok_or(DecodeError::Length(used_len))
    }

    fn send(&mut self) -> Result<Send<'a>, DecodeError> {
        let (peer, stream, position) = (self.peer()?, self.u64()?, self.u32()?);
        let (received, flags, local_port) = (self.u32()?, self.u16()?, self.u16()?);
        let (piece_len, captured_len) = (self.u32()?, self.u32()?);
        self.u32()?;
        if captured_len > piece_len {
            return Err(DecodeError::Length(captured_len));
        }
        Ok(Send {
            peer,
            stream,
            local_port,
            position,
            positioned: flags & SEND_POSITIONED != 0,
            new: flags & SEND_NEW != 0,
            more: flags & SEND_MORE != 0,
            received,
            piece_len,
            payload: self.prefix(self.bytes.len(), captured_len)?,
        })
    }

    fn peer(&mut self) -> Result<Option<SocketAddr>, DecodeError> {
        let family = self.u16()?;
        let port = self.bytes.try_get_u16().map_err(|_| DecodeError::TooShort)?;
        self.u32()?;
        let mut address = [0; 16];
        self.bytes.try_copy_to_slice(&mut address).map_err(|_| DecodeError::TooShort)?;
        let [a, b, c, d, ..] = address;
        let address = match family {
            FAMILY_NONE => return Ok(None),
            FAMILY_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            // A socket for both families has its IPv4 peers mapped; they are the same peers.
            FAMILY_INET6 => IpAddr::V6(Ipv6Addr::from(address)).to_canonical(),
            _ => return Ok(None),
        };
        Ok(Some(SocketAddr::new(address, port)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracer_common::{counters::Hook, record};

    use super::{Body, DecodeError, decode};

    fn header(kind: u16, hook: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(record::VERSION.to_ne_bytes());
        bytes.extend(hook.to_ne_bytes());
        bytes.extend(77u64.to_ne_bytes());
        bytes.extend(5u64.to_ne_bytes());
        bytes.extend([7u32, 8].into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend(9u64.to_ne_bytes());
        bytes
    }

    fn connect(family: u16, address: [u8; 16]) -> Vec<u8> {
        let mut bytes = header(record::KIND_CONNECT, Hook::Connect as u32);
        bytes.extend(family.to_ne_bytes());
        bytes.extend(9999u16.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(address);
        bytes
    }

    #[test]
    fn a_mapped_peer_is_the_same_peer() {
        let plain = connect(record::FAMILY_INET, [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mapped = connect(record::FAMILY_INET6, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1]);
        let expected = Body::Connect { peer: "127.0.0.1:9999".parse().ok() };
        assert_eq!(decode(&plain).map(|record| record.body), Ok(expected));
        assert_eq!(decode(&mapped).map(|record| record.body), Ok(expected));
    }

    #[test]
    fn a_record_of_another_version_kind_or_hook_is_refused() {
        let mut other = header(record::KIND_EXIT, Hook::Exit as u32);
        assert_eq!(decode(&other).map(|record| record.head.pid), Ok(7));
        other[2] = 99;
        assert_eq!(decode(&other), Err(DecodeError::Version(99)));
        assert_eq!(decode(&header(99, 0)), Err(DecodeError::Kind(99)));
        assert_eq!(decode(&header(record::KIND_EXIT, 99)), Err(DecodeError::Hook(99)));
    }

    #[test]
    fn a_length_beyond_its_field_is_refused() {
        let mut bytes = header(record::KIND_SDK, Hook::Click as u32);
        bytes.extend([129u32, 0].into_iter().flat_map(u32::to_ne_bytes));
        bytes.resize(size_of::<record::SdkRecord>(), b'x');
        assert_eq!(decode(&bytes), Err(DecodeError::Length(129)));
    }

    #[test]
    fn every_length_that_is_too_short_is_refused() {
        let bytes = connect(record::FAMILY_INET, [0; 16]);
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), Err(DecodeError::TooShort), "{len}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind in 0u16..8, hook in 0u32..12, tail in prop::collection::vec(any::<u8>(), 0..2300)) {
            let mut bytes = header(kind, hook);
            bytes.extend(tail);
            let _ = decode(&bytes);
        }
    }
}
