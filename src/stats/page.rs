//! The page that shows the status to people: files without a build step, and nothing from elsewhere.

/// The permissions of the page: load its own files, ask its own server, and nothing else.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

/// A file of the page.
#[derive(Debug)]
pub(super) struct File {
    pub(super) content_type: &'static str,
    pub(super) content: &'static str,
}

/// The file at this path.
pub(super) fn file(path: &str) -> Option<File> {
    let (content_type, content) = match path {
        "/status" => ("text/html; charset=utf-8", include_str!("page/status.html")),
        "/status/page.css" => ("text/css; charset=utf-8", include_str!("page/page.css")),
        "/status/page.js" => ("text/javascript; charset=utf-8", include_str!("page/page.js")),
        "/status/plots.js" => ("text/javascript; charset=utf-8", include_str!("page/plots.js")),
        "/status/icon.svg" => ("image/svg+xml", include_str!("page/icon.svg")),
        _ => return None,
    };
    Some(File { content_type, content })
}
