//! Any bytes may be on the ring. They are refused, or every byte of the record is accounted for: it needs just as many as
//! its kind has, what is read of it makes the same record again, and texts are parts of it.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use linktracer_fuzz::within;
use tracer_common::{
    limits::{ID_BUFFER_LEN, MAX_ID_LEN, PATH_LEN},
    record::{
        FAMILY_INET, FAMILY_INET6, FAMILY_NONE, KIND_CONNECT, KIND_EXEC, KIND_EXIT, KIND_FORK, KIND_SDK,
        KIND_SEND, SEND_MORE, SEND_NEW, SEND_POSITIONED, VERSION,
    },
};
use tracer_user::ingest::{
    decode::{Body, Record, decode},
    http::Send,
};

/// Decoding borrows: all that it may take is what a failed assertion would.
const MEMORY_LIMIT: usize = 0;

fuzz_target!(|bytes: &[u8]| {
    let decoded = within(MEMORY_LIMIT, || decode(bytes));
    let Ok(record) = decoded else { return };
    let len = len(&record);
    assert_eq!(decode(&bytes[..len]), decoded, "what follows the record counts");
    assert!(decode(&bytes[..len - 1]).is_err(), "its last byte does not count");

    let again = encode(&record);
    assert_eq!(again[..40], bytes[..40], "of the header");
    assert_eq!(decode(&again), decoded);

    let part = |part: &[u8]| {
        let (all, part) = (bytes.as_ptr_range(), part.as_ptr_range());
        assert!(all.start <= part.start && part.end <= all.end);
    };
    match record.body {
        Body::Send(send) => {
            part(send.payload);
            assert!(send.payload.len() <= send.piece_len as usize);
        }
        Body::Sdk { request_id, item_id } => {
            part(request_id);
            part(item_id);
            assert!(request_id.len() <= MAX_ID_LEN && item_id.len() <= MAX_ID_LEN);
        }
        Body::Exec { path } => {
            part(path);
            assert!(path.len() <= PATH_LEN);
        }
        Body::Connect { .. } | Body::Fork { .. } | Body::Exit => {}
    }
});

/// How many bytes a record takes, up to the last one that says something.
fn len(record: &Record<'_>) -> usize {
    40 + match record.body {
        Body::Send(send) => 56 + send.payload.len(),
        Body::Sdk { .. } => 8 + 2 * ID_BUFFER_LEN,
        Body::Connect { .. } => 24,
        Body::Exec { .. } => 8 + PATH_LEN,
        Body::Fork { .. } => 4,
        Body::Exit => 0,
    }
}

/// The record as the kernel side would write it, by docs/architecture.md.
fn encode(record: &Record<'_>) -> Vec<u8> {
    let kind = match record.body {
        Body::Send(_) => KIND_SEND,
        Body::Sdk { .. } => KIND_SDK,
        Body::Connect { .. } => KIND_CONNECT,
        Body::Exec { .. } => KIND_EXEC,
        Body::Fork { .. } => KIND_FORK,
        Body::Exit => KIND_EXIT,
    };
    let head = &record.head;
    let mut bytes = Vec::new();
    bytes.extend([kind, VERSION].map(u16::to_ne_bytes).concat());
    bytes.extend((head.hook as u32).to_ne_bytes());
    bytes.extend([head.monotonic_ns, head.cgroup_id].map(u64::to_ne_bytes).concat());
    bytes.extend([head.pid, head.tid].map(u32::to_ne_bytes).concat());
    bytes.extend(head.cookie.to_ne_bytes());
    match record.body {
        Body::Send(send) => encode_send(&send, &mut bytes),
        Body::Sdk { request_id, item_id } => {
            bytes.extend([request_id, item_id].map(|id| (id.len() as u32).to_ne_bytes()).concat());
            for id in [request_id, item_id] {
                padded(id, ID_BUFFER_LEN, &mut bytes);
            }
        }
        Body::Connect { peer } => encode_peer(peer, &mut bytes),
        Body::Exec { path } => {
            // With its terminating zero, where there is room for one.
            let used = (path.len() + 1).min(PATH_LEN);
            bytes.extend([used as u32, 0].map(u32::to_ne_bytes).concat());
            padded(path, PATH_LEN, &mut bytes);
        }
        Body::Fork { child_pid } => bytes.extend([child_pid, 0].map(u32::to_ne_bytes).concat()),
        Body::Exit => {}
    }
    bytes
}

fn encode_send(send: &Send<'_>, bytes: &mut Vec<u8>) {
    encode_peer(send.peer, bytes);
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    let flags =
        flag(send.positioned, SEND_POSITIONED) | flag(send.new, SEND_NEW) | flag(send.more, SEND_MORE);
    bytes.extend(send.stream.to_ne_bytes());
    bytes.extend([send.position, send.received].map(u32::to_ne_bytes).concat());
    bytes.extend([flags, send.local_port].map(u16::to_ne_bytes).concat());
    bytes.extend([send.piece_len, send.payload.len() as u32, 0].map(u32::to_ne_bytes).concat());
    bytes.extend(send.payload);
}

fn encode_peer(peer: Option<SocketAddr>, bytes: &mut Vec<u8>) {
    let (family, address) = match peer.map(|peer| peer.ip()) {
        None => (FAMILY_NONE, Vec::new()),
        Some(IpAddr::V4(address)) => (FAMILY_INET, address.octets().to_vec()),
        Some(IpAddr::V6(address)) => (FAMILY_INET6, address.octets().to_vec()),
    };
    bytes.extend(family.to_ne_bytes());
    bytes.extend(peer.map_or(0, |peer| peer.port()).to_be_bytes());
    bytes.extend([0; 4]);
    padded(&address, 16, bytes);
}

fn padded(field: &[u8], len: usize, bytes: &mut Vec<u8>) {
    let end = bytes.len() + len;
    bytes.extend(field);
    bytes.resize(end, 0);
}
