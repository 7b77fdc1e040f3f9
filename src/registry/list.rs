//! Reads a list of a registry page by page: tags, and referrers.
//!
//! Such lists decide over deletion, so a list that may be short is an error: a page that repeats, that is on another
//! host, or that cannot be read, and a list without end.

use std::collections::HashSet;

use reqwest::{Response, StatusCode};
use url::Url;

use super::client::{Call, Target, bounded_body};
use super::error::RegistryError;
use super::link;
use super::repository::Repository;

/// Upper limits of a list.
const PAGES: usize = 10_000;
const ITEMS: usize = 500_000;
/// Pages without items, which a registry sends if it filters a list.
const EMPTY_PAGES: usize = 20;
/// docker-registry returns all tags in one page.
const PAGE_BYTES: usize = 16 << 20;

/// Parses a page into items with their keys.
pub(super) type Parse<T> = fn(&[u8]) -> Result<Vec<(String, T)>, String>;

/// A list that is being read.
pub(super) struct List<'a, T> {
    repository: &'a Repository,
    call: Call,
    parse: Parse<T>,
    pub items: Vec<T>,
    keys: HashSet<String>,
    /// URLs of pages.
    met: HashSet<Url>,
    empty: usize,
    /// Items of the last page.
    pub listed: usize,
    /// Whether the first page is not a list.
    pub is_foreign: bool,
}

impl<'a, T> List<'a, T> {
    /// `call` requests the first page.
    pub fn new(repository: &'a Repository, call: Call, parse: Parse<T>) -> Self {
        Self {
            repository,
            call,
            parse,
            items: Vec::new(),
            keys: HashSet::new(),
            met: HashSet::new(),
            empty: 0,
            listed: 0,
            is_foreign: false,
        }
    }

    /// Requests a page, whose status the caller checks.
    pub async fn request(&mut self, target: Option<Target>) -> Result<Response, RegistryError> {
        if let Some(target) = target {
            self.call.target = target;
        }
        self.repository.send(&self.call).await
    }

    pub async fn refused(&self, response: Response) -> RegistryError {
        self.repository.client.refused(&self.call.doing, response).await
    }

    /// Reads from this page to the last. Returns the number of new items.
    pub async fn read(&mut self, mut page: Response) -> Result<usize, RegistryError> {
        let before = self.items.len();
        loop {
            let known = self.items.len();
            self.met.insert(page.url().clone());
            let next = self.next(&page);
            self.add(page).await?;
            let is_known = self.listed > 0 && self.items.len() == known;
            let Some(next) = next? else {
                return Ok(self.items.len() - before);
            };
            if is_known && before > 0 && known == before {
                // Asked for what follows the list, a registry that ignores `last` sends its first page again.
                return Ok(0);
            }
            self.empty += usize::from(self.listed == 0);
            if is_known || self.met.contains(&next) {
                return Err(self.wrong("its pages repeat, so the list may be incomplete"));
            }
            if self.empty > EMPTY_PAGES || self.met.len() >= PAGES || self.items.len() > ITEMS {
                return Err(self.wrong("the list does not end"));
            }
            page = self.request(Some(Target::Url(next))).await?;
            if page.status() != StatusCode::OK {
                return Err(self.refused(page).await);
            }
        }
    }

    async fn add(&mut self, page: Response) -> Result<(), RegistryError> {
        let body = bounded_body(page, PAGE_BYTES).await.map_err(|e| self.wrong(&e))?;
        let items = (self.parse)(&body).map_err(|e| {
            self.is_foreign = self.met.len() == 1;
            self.wrong(&e)
        })?;
        self.listed = items.len();
        for (key, item) in items {
            if self.keys.insert(key) {
                self.items.push(item);
            }
        }
        Ok(())
    }

    /// The next page. It must be where this page is: a list of another host is another list. Only the scheme may
    /// differ, because registries behind a proxy that ends TLS name `http`.
    fn next(&self, page: &Response) -> Result<Option<Url>, RegistryError> {
        let Some(target) = link::next(page.headers()).map_err(|e| self.wrong(&e))? else {
            return Ok(None);
        };
        let here = page.url();
        let mut url = here
            .join(&target)
            .map_err(|e| self.wrong(&format!("the next page {target:?} is not a URL: {e}")))?;
        if url.host() == here.host() && url.port() == here.port() && url.scheme().starts_with("http") {
            let _ = url.set_scheme(here.scheme());
        }
        // Nexus behind a port of its own names the path of its main port.
        if url.path().ends_with(here.path()) {
            url.set_path(here.path());
        }
        if url.origin() != here.origin() {
            return Err(self.wrong(&format!(
                "the next page is on another host, {}\nhelp: the registry must know its own name behind a proxy",
                url.host_str().unwrap_or("unknown")
            )));
        }
        Ok(Some(url))
    }

    fn wrong(&self, reason: &str) -> RegistryError {
        self.repository.client.protocol(&self.call.doing, reason)
    }
}
