//! The forms in which a registry names the next page of a list.

use std::net::SocketAddr;

use http::header::LINK;

use super::store::Call;
use super::{Answer, value};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Link {
    /// An absolute URL. Nexus (<https://github.com/sonatype/nexus-public/issues/117>).
    Absolute,
    /// The query alone, relative to the page.
    Query,
    /// An absolute URL with the path that another port has.
    /// Nexus (<https://github.com/sonatype/nexus-public/issues/1011>).
    Prefixed,
    /// `<…>; rel="first", <…>; rel="next"` in one header.
    AfterFirst,
    /// `rel="first"` in one header and `rel=next` in the next, as proxies that add a link do.
    SecondHeader,
    /// `REL=NEXT`
    Cased,
    /// `rel="last next"`
    RelList,
    /// A quoted parameter with `, < > ;` and `rel="prev"` in it.
    Quoted,
    /// The next page is on another host.
    OtherHost,
    /// The next page is this page.
    Same,
    /// Every page names another one, without end.
    Endless,
    /// A header that is not a link.
    Broken,
    /// There is a next page, and no header says so. Docker groups of Nexus
    /// (<https://github.com/sonatype/nexus-public/issues/117>).
    Missing,
}

impl Link {
    /// Writes the link to the next page in this form.
    pub fn rewrite(self, call: &Call, host: SocketAddr, response: &mut Answer) {
        if !call.path.ends_with("/tags/list") && !call.path.contains("/referrers/") {
            return;
        }
        let link = response.headers_mut().remove(LINK);
        let target = link
            .as_ref()
            .and_then(|link| Some(link.to_str().ok()?.split_once('<')?.1.split_once('>')?.0));
        let (path, n) = (&call.path, call.query.get("n").map_or("1", String::as_str));
        let last = call.query.get("last").map_or("", String::as_str);
        let target = match (self, target) {
            (Self::Same, _) => format!("{path}?n={n}&last={last}"),
            (Self::Endless, None) => format!("{path}?n={n}&last=~{last}"),
            (_, Some(target)) => target.to_string(),
            (_, None) => return,
        };
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let links = match self {
            Self::Missing => Vec::new(),
            Self::Broken => vec![format!("next: {target}")],
            Self::Same | Self::Endless => vec![format!("<{target}>; rel=\"next\"")],
            Self::Absolute => vec![format!("<http://{host}{target}>; rel=\"next\"")],
            Self::Prefixed => vec![format!("<http://{host}/repository/docker{target}>; rel=\"next\"")],
            Self::OtherHost => vec![format!("<http://127.0.0.2:1{target}>; rel=\"next\"")],
            Self::Query => vec![format!("<?{query}>; rel=\"next\"")],
            Self::AfterFirst => vec![format!("<{path}?n={n}>; rel=\"first\", <{target}>; rel=\"next\"")],
            Self::SecondHeader => vec![
                format!("<{path}?n={n}>; rel=\"first\""),
                format!("<{target}>; rel=next"),
            ],
            Self::Cased => vec![format!("<{target}>;REL=NEXT")],
            Self::RelList => vec![format!("<{target}>; rel=\"last next\"")],
            Self::Quoted => vec![format!(
                r#"<{path}>; title="a, <b>; rel=\"next\""; rel=first, <{target}>; title="; rel=prev, <c>"; rel="next""#
            )],
        };
        for link in links {
            response.headers_mut().append(LINK, value(&link));
        }
    }
}
