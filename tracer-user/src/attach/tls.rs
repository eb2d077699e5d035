//! Probes on what TLS libraries encrypt.

use std::path::Path;

use aya::{
    Ebpf,
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
    },
};
use tracer_common::settings::{C_SLOTS, GO_SLOTS};

use super::{AttachError, links::ProbeLinks};

/// A function that takes a connection, the address of bytes to encrypt and send, and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsFunction {
    /// Its name.
    pub symbol: &'static str,
    /// The library that can have it; `None`: the executable itself.
    pub library: Option<&'static str>,
    /// The register slot of its first argument.
    first_slot: u8,
}

/// Where programs encrypt: OpenSSL and what has its interface, shared or linked in, and Go.
pub const TLS_FUNCTIONS: [TlsFunction; 5] = [
    TlsFunction { symbol: "SSL_write", library: Some("libssl.so"), first_slot: C_SLOTS },
    TlsFunction { symbol: "SSL_write_ex", library: Some("libssl.so"), first_slot: C_SLOTS },
    TlsFunction { symbol: "SSL_write", library: None, first_slot: C_SLOTS },
    TlsFunction { symbol: "SSL_write_ex", library: None, first_slot: C_SLOTS },
    TlsFunction { symbol: "crypto/tls.(*Conn).Write", library: None, first_slot: GO_SLOTS },
];

const PROGRAM: &str = "tls_write_uprobe";

/// Attaches, unless a predecessor did and left its link. True when the probe is new.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    function: &TlsFunction,
    file: &Path,
    offset: u64,
    link_name: String,
    links: &mut ProbeLinks,
) -> Result<bool, AttachError> {
    if links.is_inherited(&link_name) {
        return Ok(false);
    }
    let point = UProbeAttachPoint {
        location: UProbeAttachLocation::AbsoluteOffset(offset),
        cookie: Some(u64::from(function.first_slot)),
    };
    program(ebpf)
        .and_then(|program| {
            // Loaded with the first place: most services have none.
            if program.fd().is_err() {
                program.load()?;
            }
            let link = program.attach(point, file, UProbeScope::AllProcesses)?;
            links.keep(link_name, program, link)
        })
        .map(|()| true)
        .map_err(|error| AttachError::Sdk { file: file.to_path_buf(), offset, error })
}

fn program(ebpf: &mut Ebpf) -> Result<&mut UProbe, ProgramError> {
    ebpf.program_mut(PROGRAM).ok_or(ProgramError::NotLoaded)?.try_into()
}
