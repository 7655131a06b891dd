"""Every notebook is committed without outputs and runs from top to bottom."""

import pathlib

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / 'notebooks'
NOTEBOOKS = sorted(FOLDER.glob('*.ipynb'))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)


# The client closes its kernel's sockets from the garbage collector.
@pytest.mark.filterwarnings(
    'ignore::ResourceWarning', 'ignore::pytest.PytestUnraisableExceptionWarning'
)
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, packaged_tiny, tmp_path, monkeypatch):
    monkeypatch.setenv('ALM_JAX_DATA', str(packaged_tiny))
    (tmp_path / 'configs').symlink_to(FOLDER.parent / 'configs')
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={'metadata': {'path': str(tmp_path)}}
    )
    client.execute()
    printed = [
        output.get('text', '')
        for cell in notebook.cells
        if cell.cell_type == 'code'
        for output in cell.outputs
    ]
    assert any('top1' in text for text in printed)
    assert not any('error:' in text or 'Traceback' in text for text in printed)
    assert (tmp_path / 'runs' / 'notebook' / 'report.html').is_file()
