//! The page that a person looks at: what was joined in the last hour, and how far to trust it.
//!
//! It shows what the metrics say and counts nothing itself: [`History`] keeps how much each counter grew in each of the
//! last 60 minutes, [`View`] sorts that into services, edges and releases, `notes` says how far to trust it, [`markup`]
//! writes it down. So a number on the page is always a difference of two scrapes. It is whole without scripts and asks
//! nobody else for anything.
//!
//! `export::http` serves it; the daemon's run has [`History::record`] called once a minute.

mod chart;
mod history;
mod html;
mod notes;
mod reading;
mod view;

pub use history::History;
pub use html::markup;
pub use reading::Reading;
pub use view::{Recorded, View};

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName};

/// How many minutes the page looks back.
pub const MINUTES: usize = 60;

/// What goes with the page: it brings its own style and nothing else, and a browser is told so.
pub const fn headers() -> [(HeaderName, &'static str); 2] {
    const POLICY: &str =
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";
    [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)]
}
