//! Layers that are wrong from their blob down to one field of one entry: each is refused with one sentence that
//! names the image, the layer and, where it got so far, the entry.

use std::io::{self, Cursor};

use super::*;
use crate::artifact::erofs::Writer;
use crate::layer::{self, Input};

/// What the build says of an image with this one layer.
fn refusal(blob: &[u8], suffix: &str, diff_id: Digest) -> String {
    let bench = Bench::new();
    let layers = json!([bench.descriptor(&format!("{LAYER}{suffix}"), blob)]);
    bench.index(&[bench.image_of(&layers, &config_of(&[diff_id]))]);
    let convert = || {
        let layer = &bench.fetch("oci:images")?.layers[0];
        let writer = Writer::new(Cursor::new(Vec::new()))?;
        layer::convert(
            Input { tar: layer.open()?, lower: &|| unreachable!(), limits: Limits::default() },
            writer,
        )
        .map_err(|error| error.within(&layer.name))
    };
    convert().expect_err("the image is refused").to_string()
}

/// Asserts that a refusal names image and layer, once, and then says `why`.
fn assert_refused(what: &str, refusal: &str, why: &str) {
    let rest = refusal.strip_prefix("layer 1 of 1 of image `oci:images`: ");
    let rest = rest.unwrap_or_else(|| panic!("{what}: {refusal}"));
    assert!(rest.contains(why) && !rest.contains("oci:images") && rest.len() < 300, "{what}: {refusal}");
}

/// A first entry, one with this change, and the end.
fn archive(change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let mut bytes = tar_of(&[("first", &[1; 5000])]);
    bytes.truncate(bytes.len() - 1024);
    let mut header = tar::Header::new_gnu();
    header.set_path("odd").unwrap();
    header.set_size(512);
    header.set_mode(0o644);
    change(&mut header);
    header.set_cksum();
    bytes.extend(header.as_bytes());
    bytes.extend([b'c'; 512]);
    bytes.extend(&tar_of(&[("last", b"last")]));
    bytes
}

/// The same, with an extended header before the entry.
fn extended(record: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let (key, value) = record.split_once('=').unwrap();
    builder.append_pax_extensions([(key, value.as_bytes())]).unwrap();
    let pax = builder.into_inner().unwrap();
    let mut bytes = archive(|_| {});
    let odd = 512 + 5120;
    bytes.splice(odd..odd, pax[..1024].iter().copied());
    bytes
}

fn but(bytes: &[u8], count: usize) -> Vec<u8> {
    bytes[..bytes.len() - count].to_vec()
}

/// A zstd frame of `contents` that asks for a window of 2 GiB (RFC 8878, section 3.1.1).
fn wide_window(contents: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3];
    let block = u32::try_from(contents.len()).unwrap() << 3 | 1;
    frame.extend(&block.to_le_bytes()[..3]);
    frame.extend(contents);
    frame
}

#[test]
fn a_wrong_blob_is_refused_by_the_name_of_its_layer() {
    let tar = tar_of(&[("a", &[1; 5000]), ("b", b"b")]);
    let long: Vec<u8> = (0..2_000_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let long = tar_of(&[("a", b"a"), ("noise", &long)]);
    let after = |bytes: Vec<u8>, more: &[u8]| [&bytes[..], more].concat();
    for (what, suffix, blob, tar, why) in [
        (
            "a gzip stream cut in a file",
            "+gzip",
            but(&gzip(&long), 3_000_000),
            &long,
            "the layer's entry `noise`: its gzip stream is cut short",
        ),
        (
            "a zstd stream cut in a file",
            "+zstd",
            but(&zstd(&long), 3_000_000),
            &long,
            "the layer's entry `noise`: its zstd stream is cut short",
        ),
        (
            "a gzip stream without its checksum",
            "+gzip",
            but(&gzip(&tar), 8),
            &tar,
            "its gzip stream is cut short",
        ),
        (
            "a zstd stream without its last byte",
            "+zstd",
            but(&zstd(&tar), 1),
            &tar,
            "its zstd stream is cut short",
        ),
        ("bytes behind a gzip stream", "+gzip", after(gzip(&tar), b"more"), &tar, "its gzip stream is"),
        ("bytes behind a zstd stream", "+zstd", after(zstd(&tar), b"more"), &tar, "its zstd stream is"),
        (
            "a further gzip member",
            "+gzip",
            after(gzip(&tar), &gzip(b"x")),
            &tar,
            "its tar archive has the digest `sha256:",
        ),
        (
            "a further zstd frame",
            "+zstd",
            after(zstd(&tar), &zstd(b"x")),
            &tar,
            "its tar archive has the digest `sha256:",
        ),
        (
            "a window of 2 GiB",
            "+zstd",
            wide_window(&tar),
            &tar,
            "its zstd stream is damaged: Frame requires too much memory",
        ),
        ("a gzip stream that is named zstd", "+zstd", gzip(&tar), &tar, "its zstd stream is damaged"),
        ("a plain archive that is named gzip", "+gzip", tar.clone(), &tar, "its gzip stream is damaged"),
        ("a gzip stream that is named plain", "", gzip(&tar), &tar, "it is not compressed, but its blob is"),
        (
            "another archive",
            "+gzip",
            gzip(&tar_of(&[("b", b"b")])),
            &tar,
            "its tar archive has the digest `sha256:",
        ),
        ("another plain archive", "", tar_of(&[("b", b"b")]), &tar, "it is not compressed, but its blob is"),
        ("no archive", "", b"text".repeat(200), &b"text".repeat(200), "the checksum of its header is wrong"),
    ] {
        assert_refused(what, &refusal(&blob, suffix, Digest::of(tar)), why);
    }
}

#[test]
fn a_wrong_entry_is_refused_by_its_name() {
    let set = |field: fn(&mut tar::Header) -> &mut [u8], value: &'static [u8]| {
        archive(move |header| field(header)[..value.len()].copy_from_slice(value))
    };
    let minus = [0xff; 12];
    let mut beyond = [0; 12];
    (beyond[0], beyond[4]) = (0x80, 0x80);
    let after = "the layer's entry after `first`: `odd`: ";
    for (what, tar, why) in [
        (
            "a size one too large",
            archive(|header| header.set_size(513)),
            "the layer's entry after `odd`: the checksum",
        ),
        (
            "a size one block too small",
            archive(|header| header.set_size(0)),
            "the layer's entry after `odd`: the checksum",
        ),
        ("a size beyond the end", archive(|header| header.set_size(1 << 40)), "the layer's entry `odd`"),
        (
            "a negative size",
            archive(|header| header.as_old_mut().size = minus),
            "after `first`: its size is not a number, negative",
        ),
        (
            "a negative size in digits",
            set(|header| &mut header.as_old_mut().size, b"-1\0"),
            "its size is not a number, negative",
        ),
        (
            "a negative size in an extended header",
            extended("size=-1"),
            "after `first`: its extended header has a wrong value: `size=-1`",
        ),
        (
            "a size of 2^64-1",
            extended("size=18446744073709551615"),
            "its size is not a number, negative or absurdly large",
        ),
        (
            "a user of 2^32-1",
            archive(|header| header.set_uid(u64::from(u32::MAX))),
            "its user id is not a number from 0 to 4294967294",
        ),
        (
            "a group of 2^32-1",
            extended("gid=4294967295"),
            "its group id is not a number from 0 to 4294967294",
        ),
        ("a group of 2^32", extended("gid=4294967296"), "its group id is not a number from 0 to 4294967294"),
        (
            "a time of 2^63",
            archive(|header| header.as_old_mut().mtime = beyond),
            "its time is not a number of 64 bits",
        ),
        (
            "a time of 2^63 in an extended header",
            extended("mtime=9223372036854775808"),
            "wrong value: `mtime=9223372036854775808`",
        ),
    ] {
        let refusal = refusal(&gzip(&tar), "+gzip", Digest::of(&tar));
        assert_refused(what, &refusal, why);
        assert!(refusal.contains("the layer's entry"), "{what}: {refusal}");
        assert!(!why.starts_with("its user") || refusal.contains(after), "{what}: {refusal}");
    }
}

#[test]
fn a_bomb_is_refused_before_it_fills_anything() {
    let zeros = tar_of(&[("zeros", &vec![0; 64 << 20])]);
    let read = |limits: Limits, layers: usize| {
        let bench = Bench::new();
        let layer = bench.descriptor(&format!("{LAYER}+zstd"), &zstd(&zeros));
        let ids = vec![Digest::of(&zeros); layers];
        bench.index(&[bench.image_of(&json!(vec![layer; layers]), &config_of(&ids))]);
        let lock = bench.lock("oci:images").unwrap();
        let image = fetch(&lock, Bounds { limits, ..bench.bounds() }).unwrap().remove(0);
        let read = |layer: &Layer| io::copy(&mut layer.open().unwrap(), &mut io::sink());
        image.layers.iter().try_for_each(|layer| read(layer).map(drop)).map_err(|error| error.to_string())
    };
    let usual = Limits::default();
    let layer = "layer 1 of 1 of image `oci:images`";
    assert_eq!(
        read(usual, 1),
        Err(format!("{layer}: it inflates to more than 1000 times its size (`layers.max-ratio`)"))
    );
    let patient = Limits { ratio: 1_000_000, ..usual };
    assert_eq!(read(patient, 1), Ok(()));
    let small = Limits { size: 100 << 20, ..patient };
    assert_eq!(read(small, 1), Ok(()));
    let why = "the image's layers inflate to more than 104857600 bytes (`layers.max-size`)";
    assert_eq!(read(small, 2), Err(format!("layer 2 of 2 of image `oci:images`: {why}")));
}
