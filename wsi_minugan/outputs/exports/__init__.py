"""A finished slide's mitoses, nuclei and masks in other programs' formats; streamed, so that memory is bounded."""
