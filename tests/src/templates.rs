//! The templates of deploy/argo, as tests and simulations read them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use tracer_user::lint::template::{self, Template};

/// The repository's top.
///
/// # Panics
/// Never: this package is in a workspace.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace").to_path_buf()
}

/// The one template of a file of deploy/argo.
///
/// # Panics
/// There is not exactly one.
pub fn read(file: &str) -> Template {
    let path = repository().join("deploy/argo").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut templates = template::read(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(templates.len(), 1, "{file}");
    templates.remove(0)
}

/// Its arguments that have a default value.
pub fn defaults(template: &Template) -> BTreeMap<String, String> {
    template.arguments.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
}
