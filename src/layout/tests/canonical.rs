//! The same change, written in the ways of different engines, has one digest.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tar::EntryType;

use super::support::*;
use crate::layout::LayoutImage;
use crate::layout::tree::NodeKind;

/// The content of a path, including its inode's number for hard links.
#[derive(Clone, Debug, PartialEq)]
struct Spec {
    what: Kind,
    mode: u32,
    uid: u64,
    mtime: i64,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    File { data: Vec<u8>, inode: u64 },
    Dir,
    Symlink(String),
}

type State = BTreeMap<String, Spec>;

const NAMES: [&str; 6] = ["a", "b", "c-d", "é", "etc", "x"];

fn random_dir(state: &State, r: &mut Random) -> String {
    let dirs: Vec<&String> = state
        .iter()
        .filter(|(_, s)| s.what == Kind::Dir)
        .map(|(p, _)| p)
        .collect();
    match dirs.len() {
        0 => String::new(),
        n if r.chance(80) => dirs[r.below(n)].clone(),
        _ => String::new(),
    }
}

fn remove(state: &mut State, path: &str) {
    let below = format!("{path}/");
    state.retain(|p, _| p != path && !p.starts_with(&below));
}

/// A few random changes of the kinds that a RUN step makes.
fn change(state: &mut State, r: &mut Random) {
    for _ in 0..r.below(12) {
        let parent = random_dir(state, r);
        if parent.matches('/').count() > 3 {
            continue;
        }
        let name = NAMES[r.below(NAMES.len())];
        let path = if parent.is_empty() {
            name.to_string()
        } else {
            format!("{parent}/{name}")
        };
        let times = [1_500_000_000, 1_600_000_000, EPOCH];
        let (mode, uid, mtime) = (
            [0o644, 0o755, 0o600][r.below(3)],
            [0, 42494][r.below(2)],
            times[r.below(3)],
        );
        let what = match r.below(10) {
            0 => {
                remove(state, &path);
                continue;
            }
            1..=2 => Kind::Dir,
            3 => Kind::Symlink(NAMES[r.below(6)].into()),
            4 => {
                let files: Vec<Spec> = state
                    .values()
                    .filter(|s| matches!(s.what, Kind::File { .. }))
                    .cloned()
                    .collect();
                if let Some(target) = files.get(r.below(files.len())) {
                    remove(state, &path);
                    state.insert(path, target.clone());
                }
                continue;
            }
            _ => {
                let sizes = if r.chance(90) { 3 } else { 5 };
                let size = [0, 3, 600, 70_000, 1_100_000][r.below(sizes)];
                Kind::File {
                    data: vec![r.next() as u8 % 4; size],
                    inode: r.next(),
                }
            }
        };
        if !(what == Kind::Dir && state.get(&path).is_some_and(|s| s.what == Kind::Dir)) {
            remove(state, &path);
        }
        let mode = if matches!(what, Kind::Symlink(_)) { 0o777 } else { mode };
        state.insert(path, Spec { what, mode, uid, mtime });
    }
}

/// Whether an engine that compares the two would report a change; directory times are left to chance.
fn differs(old: Option<&Spec>, new: &Spec) -> bool {
    let Some(old) = old else { return true };
    let same_what = match (&old.what, &new.what) {
        (Kind::File { data: a, .. }, Kind::File { data: b, .. }) => a == b,
        (a, b) => a == b,
    };
    !same_what || (old.mode, old.uid) != (new.mode, new.uid) || (new.what != Kind::Dir && old.mtime != new.mtime)
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(i, _)| &path[..i])
}

/// One engine's way of writing the layer between two states.
fn render(lower: &State, upper: &State, r: &mut Random) -> Vec<u8> {
    let mut paths: BTreeSet<&str> = BTreeSet::new();
    let mut hidden: BTreeSet<String> = BTreeSet::new();
    for (path, spec) in upper {
        if differs(lower.get(path), spec) || r.chance(10) {
            paths.insert(path);
        }
    }
    for path in lower.keys().filter(|p| !upper.contains_key(*p)) {
        if parents(path)
            .last()
            .is_none_or(|p| upper.get(p).is_some_and(|s| s.what == Kind::Dir))
        {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            hidden.insert(format!("{dir}/.wh.{name}").trim_start_matches('/').to_string());
        }
    }
    // An opaque directory with its whole content is another way to write the same change.
    for (path, spec) in upper {
        if spec.what == Kind::Dir && r.chance(15) {
            let below = format!("{path}/");
            hidden.retain(|p| !p.starts_with(&below));
            hidden.insert(format!("{below}.wh..wh..opq"));
            paths.insert(path);
            paths.extend(upper.keys().filter(|p| p.starts_with(&below)).map(String::as_str));
        }
    }
    let above: Vec<&str> = paths.iter().flat_map(|p| parents(p)).collect();
    paths.extend(above);
    if r.chance(30) {
        hidden.insert(".wh.never-was-there".into());
    }
    let mut order: Vec<&str> = paths.into_iter().collect();
    if r.chance(70) {
        r.shuffle(&mut order);
        // A directory that replaces a file or link must precede its content.
        order.sort_by_key(|p| match (&upper[*p].what, lower.get(*p)) {
            (Kind::Dir, Some(old)) if old.what != Kind::Dir => p.len(),
            _ => usize::MAX,
        });
    }
    let mut first: BTreeMap<u64, &str> = BTreeMap::new();
    let mut items: Vec<Item> = Vec::new();
    for path in order {
        let spec = &upper[path];
        let item = match &spec.what {
            Kind::Dir => dir(&format!("{path}{}", if r.chance(80) { "/" } else { "" })),
            Kind::Symlink(target) => symlink(path, target),
            Kind::File { data, inode } => match first.get(inode) {
                Some(target) => hard_link(path, target),
                None => {
                    first.insert(*inode, path);
                    file(path, data)
                }
            },
        };
        items.push(noisy(item, spec, r));
    }
    for path in hidden {
        let at = r.below(items.len() + 1);
        items.insert(at, file(&path, ""));
    }
    tar(&items)
}

fn noisy(mut item: Item, spec: &Spec, r: &mut Random) -> Item {
    item.mode = spec.mode | if r.chance(30) { 0o100_000 } else { 0 };
    item.uid = spec.uid;
    item.mtime = spec.mtime;
    // Files made during a build get that hour's time; directories get that, or their source's.
    if spec.mtime == EPOCH || (item.kind == EntryType::Directory && r.chance(50)) {
        item.mtime = EPOCH + r.below(1000) as i64;
    }
    if item.kind == EntryType::Symlink && r.chance(50) {
        item.mode = 0o644;
    }
    if r.chance(30) {
        item.owner = "someone".into();
    }
    if r.chance(20) && item.kind == EntryType::Regular {
        item.device = (r.below(9) as u32, 1);
    }
    if r.chance(30) {
        item.path = format!("./{}", item.path);
    }
    item.gnu = item.path.is_ascii() && r.chance(40);
    if !item.gnu && r.chance(40) {
        item.pax.push((
            "mtime".into(),
            format!("{}.{:09}", item.mtime, r.below(1_000_000_000)).into(),
        ));
        item.pax
            .push(("SCHILY.xattr.trusted.overlay.origin".into(), b"\x00\xfb\n\n=".to_vec()));
        item.pax
            .push(("SCHILY.xattr.security.selinux".into(), b"unconfined".to_vec()));
    }
    item
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn one_content_one_digest(seed: u64) {
        let mut r = Random(seed);
        let mut states = vec![State::new()];
        for _ in 0..4 {
            let mut next = states.last().unwrap().clone();
            change(&mut next, &mut r);
            states.push(next);
        }
        let base = render(&states[0], &states[1], &mut Random(seed));
        let told = |seed: u64| {
            let mut r = Random(seed);
            let mut layers = vec![base.clone()];
            layers.extend(states.windows(2).skip(1).map(|pair| render(&pair[0], &pair[1], &mut r)));
            layers
        };
        let (one, other) = (told(seed ^ 1), told(seed ^ 2));
        let base = options(&[&base]);
        let (_a, one) = ingest_new(&legacy_export(&one, &config(&one, true)), &base).unwrap();
        let (_b, other) = ingest_new(&oci_export(&other, &config(&other, false), &gzip), &base).unwrap();
        prop_assert_eq!(one.layers.len(), other.layers.len());
        for (i, (a, b)) in one.layers.iter().zip(&other.layers).enumerate() {
            let list = |dir: &tempfile::TempDir, l| long_listing(&layer_bytes(dir.path(), l));
            prop_assert_eq!(list(&_a, a), list(&_b, b), "layer {}", i);
        }
        prop_assert_eq!(one.manifest.digest(), other.manifest.digest());
        // A reader of the layout sees the tree that ingest returned.
        let opened = LayoutImage::open(&_a.path().display().to_string().parse().unwrap()).unwrap();
        let read = opened.read_tree(&opened.platforms[0].1, &base.read).unwrap();
        for ((a, x), (b, y)) in read.tree.iter().zip(one.tree.iter()) {
            prop_assert_eq!((a, x), (b, y));
        }
        // The content matches.
        let wanted = states.last().unwrap();
        prop_assert_eq!(one.tree.len(), wanted.len() + 1);
        for (path, spec) in wanted {
            let node = one.tree.get(path).unwrap();
            match (&spec.what, &node.kind) {
                (Kind::File { data, .. }, NodeKind::File(file)) => {
                    prop_assert_eq!(file.content.as_deref(), Some(&data[..]));
                    prop_assert_eq!(node.mtime.min(EPOCH), spec.mtime);
                }
                (Kind::Dir, NodeKind::Directory) => {}
                (Kind::Symlink(a), NodeKind::Symlink(b)) => prop_assert_eq!(a, b),
                (a, b) => prop_assert!(false, "{}: {:?} became {:?}", path, a, b),
            }
            prop_assert_eq!(u64::from(node.uid), spec.uid);
            if !matches!(spec.what, Kind::Symlink(_)) {
                prop_assert_eq!(node.mode, spec.mode);
            }
        }
    }
}
