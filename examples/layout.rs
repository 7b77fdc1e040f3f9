//! Measures the layout stage alone: `layout ingest EXPORT DIR [BASE_DIFF_ID…]` (EXPORT `-` is stdin), `layout read DIR…`.
use std::io::Read;
use std::time::Instant;

use obgp_build::layout::*;
use obgp_build::progress::Silent;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let start = Instant::now();
    match args[0].as_str() {
        "ingest" => {
            let export: Box<dyn Read + Send> = match args[1].as_str() {
                "-" => Box::new(std::io::stdin()),
                path => Box::new(std::fs::File::open(path)?),
            };
            let layout = Layout::open_or_create(&args[2])?;
            let zstd = std::env::var("ZSTD").is_ok();
            let options = IngestOptions {
                platform: "linux/amd64".parse()?,
                base_diff_ids: args[3..].iter().map(|d| d.parse()).collect::<Result<_, _>>()?,
                source_date_epoch: 1767225600,
                compression: if zstd { Compression::Zstd } else { Compression::Gzip },
                labels: Default::default(),
                expected_size: None,
                read: ReadOptions::default(),
            };
            let image = ingest(&layout, export, &options, &Silent)?;
            eprintln!("ingested {:?}", start.elapsed());
            let index = write_index(&layout, &[image.manifest.clone()], &Default::default())?;
            layout.set_tag("t", &index)?;
            let size: u64 = image.layers.iter().map(|l| l.size).sum();
            println!(
                "{} {} nodes {} bytes {:#?}",
                image.manifest.digest(),
                image.tree.len(),
                size,
                image.layers
            );
        }
        _ => {
            std::thread::scope(|scope| {
                for dir in &args[1..] {
                    scope.spawn(move || {
                        let image = LayoutImage::open(&dir.parse().unwrap()).unwrap();
                        for (_, manifest) in &image.platforms {
                            let tree = image.read_tree(manifest, &ReadOptions::default()).unwrap().tree;
                            println!("{} nodes", tree.len());
                        }
                    });
                }
            });
        }
    }
    eprintln!("done {:?}", start.elapsed());
    Ok(())
}
