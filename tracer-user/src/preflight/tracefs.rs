//! Where the fields of a tracepoint's record stand, as tracefs describes them.

use std::{fs, io, path::Path};

/// Folders where tracefs may be mounted.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The mounted tracefs.
///
/// # Errors
/// It is mounted nowhere; or, as permission denied, this process may not look where it would be.
pub fn mount_point() -> io::Result<&'static Path> {
    let mut problem = io::ErrorKind::NotFound.into();
    for mount in MOUNTS.map(Path::new) {
        match fs::metadata(mount.join("events")) {
            Ok(_) => return Ok(mount),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => problem = error,
            Err(_) => {}
        }
    }
    Err(problem)
}

/// The format description of a tracepoint.
///
/// # Errors
/// This kernel has no such tracepoint, or it cannot be read.
pub fn format(mount: &Path, category: &str, name: &str) -> io::Result<String> {
    fs::read_to_string(mount.join("events").join(category).join(name).join("format"))
}

/// Where the field `name` stands in the record that `format` describes, in bytes.
pub fn field_offset(format: &str, name: &str) -> Option<u32> {
    format.lines().filter_map(|line| line.trim().strip_prefix("field:")).find_map(|line| {
        let mut parts = line.split(';').map(str::trim);
        let declaration = parts.next()?;
        let declaration = declaration.split('[').next()?;
        if declaration.rsplit([' ', '*']).next()? != name && !declares_array(line, name) {
            return None;
        }
        parts.find_map(|part| part.strip_prefix("offset:"))?.trim().parse().ok()
    })
}

/// `__data_loc char[] filename`: the name follows the brackets.
fn declares_array(line: &str, name: &str) -> bool {
    line.split(';').next().and_then(|declaration| declaration.rsplit(' ').next()) == Some(name)
}

#[cfg(test)]
mod tests {
    use super::field_offset;

    const FORMAT: &str = "name: x\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;\n\
        \tfield:__u8 daddr[4];\toffset:36;\tsize:4;\tsigned:0;\n\
        \tfield:__u8 daddr_v6[16];\toffset:56;\tsize:16;\tsigned:0;\n\
        \tfield:const void *skaddr;\toffset:64;\tsize:8;\tsigned:0;\n";

    #[test]
    fn every_form_of_declaration_is_found() {
        assert_eq!(field_offset(FORMAT, "filename"), Some(8));
        assert_eq!(field_offset(FORMAT, "pid"), Some(12));
        assert_eq!(field_offset(FORMAT, "daddr"), Some(36));
        assert_eq!(field_offset(FORMAT, "daddr_v6"), Some(56));
        assert_eq!(field_offset(FORMAT, "skaddr"), Some(64));
        assert_eq!(field_offset(FORMAT, "addr"), None);
    }
}
