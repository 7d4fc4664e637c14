"""Images in every format, as they are in practice, and damaged in every way."""

import itertools
import unicodedata
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_modality_lut

from mmcuda.data.image_files import FileImages, open_images
from mmcuda.data.problems import ImageError

DICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"  # real ones, from many scanners


@pytest.fixture
def grey():
    """Return a smooth image, 32 x 32, with a black and a white corner: no percentile cuts anything off."""
    x = np.linspace(0, 1, 32)
    return np.rint(255 * np.clip(1.4 * (0.6 * x[:, None] + 0.4 * x) - 0.2, 0, 1)).astype(np.uint8)


def read(folder, name, size=32, channels=1):
    return FileImages(folder, np.array([name]), channels).read(0, size)


def reason(folder, name):
    with pytest.raises(ImageError) as error:
        read(folder, name)
    assert error.value.where == name
    return error.value.message


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.bmp", "without_suffix"])
def test_8_bit_stays_as_it_is(tmp_path, grey, name):
    Image.fromarray(grey).save(tmp_path / name, format=None if "." in name else "PNG", quality=100)
    picture = read(tmp_path, name)
    assert (picture.width, picture.height) == (32, 32)
    assert picture.pixels.shape == (1, 32, 32)
    np.testing.assert_allclose(picture.pixels[0], grey, atol=2 if name == "a.jpg" else 0)


@pytest.mark.parametrize("gain", [1, 16, 257])
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_16_bit_uses_the_whole_range_whatever_part_of_it_is_used(tmp_path, grey, name, gain):
    Image.fromarray(grey.astype(np.uint16) * gain).save(tmp_path / name)
    np.testing.assert_allclose(read(tmp_path, name).pixels[0], grey, atol=5)


def test_one_bright_pixel_does_not_darken_the_rest(tmp_path, grey):
    values = grey.astype(np.uint16)
    values[0, 0] = 60000
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_allclose(read(tmp_path, "a.tif").pixels[0, 1:], grey[1:], atol=5)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "I", "F", "I;16B"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_gives_grey_or_colour(tmp_path, grey, mode, channels):
    image = Image.fromarray(grey)
    if mode == "I;16B":
        image = Image.frombytes("I;16B", (32, 32), grey.astype(">u2").tobytes())
    image = image if image.mode == mode else image.convert(mode)
    image.save(tmp_path / "a.tif")
    pixels = read(tmp_path, "a.tif", channels=channels).pixels
    assert pixels.shape == (channels, 32, 32)
    if mode != "1":
        np.testing.assert_allclose(pixels.mean(axis=0), grey, atol=6)


def test_an_image_is_padded_to_a_square_and_keeps_its_proportions(tmp_path):
    Image.new("L", (60, 20), 200).save(tmp_path / "wide.png")
    picture = read(tmp_path, "wide.png", size=30)
    assert (picture.width, picture.height) == (60, 20)
    assert (picture.pixels[0, 10:20] == 200).all()
    assert (picture.pixels[0, :10] == 0).all()
    assert (picture.pixels[0, 20:] == 0).all()


def test_shrinking_averages(tmp_path):
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "checks.png")
    assert abs(read(tmp_path, "checks.png", size=16).pixels.astype(int) - 128).max() < 20


def test_a_photograph_taken_upright_stands_upright(tmp_path, grey):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(grey[:20]).save(tmp_path / "a.jpg", exif=exif, quality=100)
    picture = read(tmp_path, "a.jpg")
    assert (picture.width, picture.height) == (20, 32)
    np.testing.assert_allclose(picture.pixels[0, :, 6:26], np.rot90(grey[:20], -1), atol=4)


def test_a_large_jpeg_is_decoded_small_and_knows_its_size(tmp_path, grey):
    Image.fromarray(grey).resize((800, 600)).save(tmp_path / "a.jpg")
    images = FileImages(tmp_path, np.array(["a.jpg"]), 1)
    assert images.decode(0, 32).image.size == (100, 75)
    assert (images.read(0, 32).width, images.read(0, 32).height) == (800, 600)


def test_pages_of_a_tif(tmp_path):
    pages = [Image.new("L", (8, 8), value) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert [read(tmp_path, name, 8).pixels[0, 0, 0] for name in ("a.tif", "a.tif#0", "a.tif#2")] == [10, 10, 30]
    assert reason(tmp_path, "a.tif#3") == "has 3 pages, numbered from 0, but number 3 is asked for"


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"])
def test_dicom_of_real_scanners(name):
    dataset = pydicom.dcmread(DICOM_FILES / name)
    values = apply_modality_lut(dataset.pixel_array, dataset).astype(float)
    low, high = np.percentile(values, (0.5, 99.5))
    if "WindowWidth" in dataset:
        low = dataset.WindowCenter - dataset.WindowWidth / 2
        high = dataset.WindowCenter + dataset.WindowWidth / 2
    expected = np.clip(255 * (values - low) / (high - low), 0, 255)
    np.testing.assert_allclose(read(DICOM_FILES, name, dataset.Rows).pixels[0], expected, atol=1)


def change(tmp_path, name, **elements):
    """Return the folder of a copy of CT_small.dcm with other elements."""
    dataset = pydicom.dcmread(DICOM_FILES / "CT_small.dcm")
    for element, value in elements.items():
        setattr(dataset, element, value)
    dataset.save_as(tmp_path / name)
    return tmp_path


def test_a_dicom_window_is_used_in_the_unit_of_the_rescaled_values(tmp_path):
    dataset = pydicom.dcmread(DICOM_FILES / "CT_small.dcm")
    hounsfield = apply_modality_lut(dataset.pixel_array, dataset)
    folder = change(tmp_path, "a.dcm", WindowCenter=[40, 400], WindowWidth=[400, 2000])
    expected = np.clip(255 * ((hounsfield - 39.5) / 399 + 0.5), 0, 255)
    np.testing.assert_allclose(read(folder, "a.dcm", 128).pixels[0], expected, atol=1)


def test_monochrome1_is_turned_over(tmp_path):
    folder = change(tmp_path, "a.dcm", PhotometricInterpretation="MONOCHROME1")
    ordinary = read(DICOM_FILES, "CT_small.dcm", 128).pixels
    np.testing.assert_array_equal(read(folder, "a.dcm", 128).pixels, 255 - ordinary)


def test_dicom_in_colour_with_frames_and_with_one_bit():
    assert len(np.unique(read(DICOM_FILES, "examples_palette.dcm", channels=3).pixels)) > 10
    first, second = (read(DICOM_FILES, f"SC_rgb_rle_2frame.dcm#{frame}", 100, 3).pixels for frame in (0, 1))
    np.testing.assert_array_equal(first, 255 - second)
    np.testing.assert_array_equal(read(DICOM_FILES, "SC_rgb_rle_2frame.dcm", 100, 3).pixels, second)  # the middle one
    assert set(np.unique(read(DICOM_FILES, "liver_1frame.dcm", 512).pixels)) == {0, 255}
    assert reason(DICOM_FILES, "liver_1frame.dcm#7") == "has 1 frames, numbered from 0, but number 7 is asked for"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MR_truncated.dcm", "truncated"),
        ("reportsi.dcm", "a DICOM file that holds no image"),
        ("ExplVR_LitEndNoMeta.dcm", "not a DICOM file"),
        ("JPEGLSNearLossless_08.dcm", "compressed in a way that needs one more package: pip install 'pylibjpeg[all]'"),
    ],
)
def test_dicom_that_cannot_be_read(name, message):
    assert reason(DICOM_FILES, name) == message


def oriented(volume, codes):
    """Store a volume whose axes run to the right, to the front and up in another orientation."""
    image = nibabel.Nifti1Image(volume, np.eye(4))
    target = nibabel.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), target))


ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(("LR", "PA", "IS")) for codes in itertools.product(*axes)
]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_nifti_slice_is_axial_with_the_patients_right_on_the_left(tmp_path, codes):
    volume = np.random.default_rng(0).normal(size=(9, 7, 5)).astype(np.float32)
    oriented(volume, codes).to_filename(tmp_path / "a.nii")
    axial = volume[:, :, 2].T[::-1, ::-1]  # front up, right on the left
    low, high = np.percentile(axial, (0.5, 99.5))
    pixels = read(tmp_path, "a.nii", 9).pixels[0]
    np.testing.assert_allclose(pixels[1:8], np.clip(255 * (axial - low) / (high - low), 0, 255), atol=1)


def test_nifti_slices_have_numbers_and_missing_voxels_are_black(tmp_path):
    volume = np.random.default_rng(0).normal(size=(8, 8, 4, 1))
    volume[:4, :, 3] = np.nan
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    last = read(tmp_path, "a.nii.gz#3", 8).pixels[0]
    assert (last[:, 4:] == 0).all()
    assert last[:, :4].max() == 255
    np.testing.assert_array_equal(read(tmp_path, "a.nii.gz", 8).pixels, read(tmp_path, "a.nii.gz#2", 8).pixels)
    assert reason(tmp_path, "a.nii.gz#4") == "has 4 slices, numbered from 0, but number 4 is asked for"
    nibabel.Nifti1Image(np.zeros((4, 4, 4, 2)), np.eye(4)).to_filename(tmp_path / "series.nii")
    assert reason(tmp_path, "series.nii") == "expected a volume of 3 dimensions, got [4, 4, 4, 2]"


@pytest.mark.parametrize("part", ["hw", "hwc", "chw", "grey chw", "stack", "float", "bool"])
def test_npy(tmp_path, grey, part):
    arrays = {
        "hw": grey,
        "hwc": np.stack([grey] * 3, axis=2),
        "chw": np.stack([grey] * 3),
        "grey chw": grey[None],
        "stack": np.stack([grey // 2, grey // 3, grey, grey, grey // 4]),
        "float": grey / 1000 - 3,
        "bool": grey > 100,
    }
    np.save(tmp_path / "a.npy", arrays[part])
    expected = np.where(grey > 100, 255, 0) if part == "bool" else grey
    np.testing.assert_allclose(read(tmp_path, "a.npy").pixels[0], expected, atol=5 if part == "float" else 0)
    if part == "stack":
        np.testing.assert_array_equal(read(tmp_path, "a.npy#4").pixels[0], grey // 4)


def test_npy_that_is_no_image(tmp_path):
    np.save(tmp_path / "a.npy", np.array([["text"]]))
    assert reason(tmp_path, "a.npy") == "expected numbers, got <U4"
    np.save(tmp_path / "a.npy", np.zeros(5))
    assert reason(tmp_path, "a.npy") == "expected an image [H, W] or [H, W, C], got [5]"


def test_a_constant_image_is_black_and_no_error(tmp_path):
    np.save(tmp_path / "a.npy", np.full((8, 8), 7.5))
    assert (read(tmp_path, "a.npy", 8).pixels == 0).all()


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.npy", "a.dcm", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_a_truncated_file_and_an_empty_one(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, noise)
    elif name == "a.dcm":
        change(tmp_path, name)
    elif name.startswith("a.nii"):
        nibabel.Nifti1Image(noise[..., None], np.eye(4)).to_filename(path)
    else:
        Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert reason(tmp_path, name) == ("truncated" if share else "empty (0 bytes)")


def test_what_is_no_image_at_all(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop2.png")
    (tmp_path / "loop2.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "text.png").write_text("no image, but text")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    assert reason(tmp_path, "missing.png") == "missing"
    assert reason(tmp_path, "broken.png") == "missing"
    assert reason(tmp_path, "text.png/more.png") == "missing"
    assert reason(tmp_path, "folder.png") == "a folder, not an image"
    assert reason(tmp_path, "loop.png") == "a loop of symbolic links"
    assert reason(tmp_path, "text.png") == "not an image of a known format"


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_accents_may_be_written_in_either_form(tmp_path, grey, written):
    other = {"NFC": "NFD", "NFD": "NFC"}[written]
    Image.fromarray(grey).save(tmp_path / unicodedata.normalize(written, "Größe é.png"))
    np.testing.assert_array_equal(read(tmp_path, unicodedata.normalize(other, "Größe é.png")).pixels[0], grey)


def test_the_same_image_in_two_formats_has_one_digest(tmp_path, grey):
    for name in ("a.tif", "b.png"):
        Image.fromarray(grey).save(tmp_path / name)
    np.save(tmp_path / "c.npy", np.stack([grey, grey + 1]))
    digests = [read(tmp_path, name, 8).digest for name in ("a.tif", "b.png", "c.npy#0", "c.npy#1")]
    assert digests[0] == digests[1] == digests[2] != digests[3]
    assert len(digests[0]) == 32


def test_the_first_readable_image_tells_the_channels(tmp_path, grey):
    (tmp_path / "0.png").write_bytes(b"")
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / "1.png")
    names = np.array(["0.png", "1.png"])
    assert open_images(tmp_path, names).channel_names == ("red", "green", "blue")
    assert open_images(tmp_path, names, 1).channel_names == ("grey",)
    assert open_images(tmp_path, names[:1]).channel_names == ("grey",)
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
        FileImages(tmp_path, names, 2)


def test_a_stamp_changes_with_the_file(tmp_path, grey):
    Image.fromarray(grey).save(tmp_path / "a.png")
    images = FileImages(tmp_path, np.array(["a.png", "b.png"]), 1)
    before = images.stamps()
    assert before[1] == "missing"
    Image.fromarray(grey[:16]).save(tmp_path / "a.png")
    assert images.stamps()[0] != before[0]
    assert images.take(np.array([0])).origins.tolist() == [str(tmp_path / "a.png")]
