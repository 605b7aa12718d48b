//! Changed bytes of a file that lie over what it has: what earlier passes have put into a journal, and what a later one
//! puts over that. There is one shape of them only, the one in which a journal takes them (see [`super::journal::op`]):
//! by offsets, none over another, none behind the file's end.

use anyhow::Result;

use super::journal::op::Extent;

/// Lays extents over earlier ones and cuts off what is behind the end. Of either lot none is over another; the earlier
/// are by offsets. `load` reads the bytes of an earlier extent, of which a part stays.
pub fn merge(
    before: &[Extent],
    mut after: Vec<Extent>,
    end: u64,
    mut load: impl FnMut(&Extent) -> Result<Vec<u8>>,
) -> Result<Vec<Extent>> {
    after.sort_unstable_by_key(|extent| extent.offset);
    let mut all = Vec::with_capacity(before.len() + after.len());
    let mut first = 0;
    for extent in before {
        first += after[first..].iter().take_while(|over| over.end() <= extent.offset).count();
        let (mut at, end) = (extent.offset, extent.end().min(end));
        for over in after[first..].iter().take_while(|over| over.offset < end) {
            if at < over.offset {
                all.push(cut(extent, at, over.offset, &mut load)?);
            }
            at = at.max(over.end());
        }
        if at < end {
            all.push(cut(extent, at, end, &mut load)?);
        }
    }
    all.append(&mut after);
    all.sort_unstable_by_key(|extent| extent.offset);
    Ok(all)
}

/// The part of an extent from one place in the file to another.
fn cut(extent: &Extent, from: u64, to: u64, load: &mut impl FnMut(&Extent) -> Result<Vec<u8>>) -> Result<Extent> {
    let (skipped, length) = (from - extent.offset, to - from);
    if extent.is_hole || length == extent.length {
        return Ok(Extent { offset: from, length, ..*extent });
    }
    let bytes = load(extent)?;
    let crc = crc32c::crc32c(&bytes[skipped as usize..(skipped + length) as usize]);
    Ok(Extent { offset: from, length, blob: extent.blob + skipped, crc, is_hole: false })
}

/// Puts those of some extents into a buffer that lie in it; the buffer is the file's content from `offset` on.
pub fn lay(
    extents: &[Extent],
    offset: u64,
    buffer: &mut [u8],
    mut load: impl FnMut(&Extent) -> Result<Vec<u8>>,
) -> Result<()> {
    let end = offset + buffer.len() as u64;
    let first = extents.partition_point(|extent| extent.end() <= offset);
    for extent in extents[first..].iter().take_while(|extent| extent.offset < end) {
        let (from, to) = (extent.offset.max(offset), extent.end().min(end));
        let place = &mut buffer[(from - offset) as usize..(to - offset) as usize];
        if extent.is_hole {
            place.fill(0);
        } else {
            let bytes = load(extent)?;
            place.copy_from_slice(&bytes[(from - extent.offset) as usize..(to - extent.offset) as usize]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds bytes to a blob.
    fn bytes(blob: &mut Vec<u8>, offset: u64, bytes: &[u8]) -> Extent {
        let at = blob.len() as u64;
        blob.extend(bytes);
        Extent { offset, length: bytes.len() as u64, blob: at, crc: crc32c::crc32c(bytes), is_hole: false }
    }

    fn load(blob: &[u8], extent: &Extent) -> Result<Vec<u8>> {
        let bytes = blob[extent.blob as usize..][..extent.length as usize].to_vec();
        assert_eq!(crc32c::crc32c(&bytes), extent.crc);
        Ok(bytes)
    }

    #[test]
    fn what_is_laid_later_is_what_is_read() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..500 {
            let (mut blob, mut extents) = (Vec::new(), Vec::new());
            let mut want = random.u8(..).to_le_bytes().repeat(200);
            let original = want.clone();
            for _ in 0..random.usize(1..6) {
                let length = random.usize(100..=200);
                want.truncate(length);
                want.resize(length, 0);
                let (mut lot, mut at) = (Vec::new(), random.usize(..40));
                // Of what was cut off before and is there again, all is said.
                while at < length {
                    let piece = &mut want[at..(at + random.usize(1..30)).min(length)];
                    if random.bool() {
                        piece.fill(0);
                        lot.push(Extent::hole(at as u64, piece.len() as u64));
                    } else {
                        piece.fill_with(|| random.u8(..));
                        lot.push(bytes(&mut blob, at as u64, piece));
                    }
                    at += piece.len() + if at < 100 { random.usize(..20) } else { 0 };
                }
                random.shuffle(&mut lot);
                extents = merge(&extents, lot, length as u64, |extent| load(&blob, extent)).unwrap();
                assert!(extents.iter().all(|extent| extent.length > 0 && extent.end() <= length as u64));
                assert!(extents.windows(2).all(|two| two[0].end() <= two[1].offset), "{extents:?}");
            }
            let from = random.usize(..want.len());
            let to = random.usize(from..want.len());
            let mut read = original[from..to].to_vec();
            lay(&extents, from as u64, &mut read, |extent| load(&blob, extent)).unwrap();
            assert_eq!(read, want[from..to]);
        }
    }
}
