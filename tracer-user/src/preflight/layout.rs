//! Everything the kernel side has to know of this kernel's structures and tracepoint records.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracer_common::settings::Offsets;

use super::{
    btf::{Btf, BtfError},
    tracefs,
};

/// Why the layout is not known. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// There is no type information at the configured place.
    #[error(
        "no kernel type information (BTF) at {path}: {error}\n  remedy: a kernel built with CONFIG_DEBUG_INFO_BTF=y \
         (every current distribution's is), or `btf:` in the configuration set to a BTF file made for this kernel"
    )]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it could not be read.
        error: io::Error,
    },
    /// The type information does not say what is needed.
    #[error(
        "the kernel type information at {path} is not usable: {error}\n  remedy: check that `btf:` names a BTF file made for this kernel"
    )]
    BadBtf {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: BtfError,
    },
    /// tracefs is not mounted.
    #[error(
        "tracefs is not mounted\n  remedy: mount -t tracefs tracefs /sys/kernel/tracing (in a container: mount the host's /sys/kernel/tracing)"
    )]
    NoTracefs,
    /// This process may not look into tracefs.
    #[error(
        "tracefs may not be read: missing CAP_DAC_READ_SEARCH\n  remedy: run as root (sudo linktracer ...), or grant the capability"
    )]
    TracefsRefused,
    /// A tracepoint is not there or cannot be read.
    #[error(
        "the tracepoint {name} cannot be read: {error}\n  remedy: run as root, on a kernel built with CONFIG_FTRACE_SYSCALLS=y"
    )]
    NoTracepoint {
        /// Category and name.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// A tracepoint's record has no such field.
    #[error(
        "the tracepoint {name} of this kernel has no field `{field}`\n  remedy: report the kernel's version to the project"
    )]
    NoField {
        /// Category and name.
        name: String,
        /// Which field.
        field: &'static str,
    },
}

/// Reads the layout of the running kernel; `btf` is the file with its type information.
///
/// # Errors
/// See [`LayoutError`].
pub fn read(btf: &Path) -> Result<Offsets, LayoutError> {
    let path = btf;
    let bytes = fs::read(path).map_err(|error| LayoutError::NoBtf { path: path.to_path_buf(), error })?;
    let bad = |error| LayoutError::BadBtf { path: path.to_path_buf(), error };
    let btf = Btf::parse(&bytes).map_err(bad)?;
    let member = |structure: &str, member: &str| btf.offset(structure, member).map_err(bad);
    let mount = tracefs::mount_point().map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => LayoutError::TracefsRefused,
        _ => LayoutError::NoTracefs,
    })?;
    let field = |category: &str, name: &str, field: &'static str| {
        let full_name = format!("{category}:{name}");
        let format = tracefs::format(mount, category, name)
            .map_err(|error| LayoutError::NoTracepoint { name: full_name.clone(), error })?;
        tracefs::field_offset(&format, field).ok_or(LayoutError::NoField { name: full_name, field })
    };
    let state = |name| field("sock", "inet_sock_set_state", name);
    Ok(Offsets {
        task_files: member("task_struct", "files")?,
        files_fdt: member("files_struct", "fdt")?,
        fdtable_max_fds: member("fdtable", "max_fds")?,
        fdtable_fd: member("fdtable", "fd")?,
        file_inode: member("file", "f_inode")?,
        file_private_data: member("file", "private_data")?,
        inode_mode: member("inode", "i_mode")?,
        socket_sk: member("socket", "sk")?,
        sock_family: member("sock_common", "skc_family")?,
        sock_dport: member("sock_common", "skc_dport")?,
        sock_daddr: member("sock_common", "skc_daddr")?,
        sock_v6_daddr: member("sock_common", "skc_v6_daddr")?,
        sock_num: member("sock_common", "skc_num")?,
        sock_protocol: member("sock", "sk_protocol")?,
        tcp_write_seq: member("tcp_sock", "write_seq")?,
        tcp_copied_seq: member("tcp_sock", "copied_seq")?,
        padding: 0,
        // The first argument of any system call of the family; it is called `fd` in each of them.
        syscall_args: field("syscalls", "sys_enter_write", "fd")?,
        state_old: state("oldstate")?,
        state_new: state("newstate")?,
        state_protocol: state("protocol")?,
        state_family: state("family")?,
        state_dport: state("dport")?,
        state_daddr: state("daddr")?,
        state_daddr_v6: state("daddr_v6")?,
        exec_filename: field("sched", "sched_process_exec", "filename")?,
        fork_pid: field("task", "task_newtask", "pid")?,
        fork_clone_flags: field("task", "task_newtask", "clone_flags")?,
    })
}
