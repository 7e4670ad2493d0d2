"""Save the points that were edited in 3D Slicer as a label on the server.

MONAI Label's own module for 3D Slicer shows points, but its `Submit Label` sends boxes only. In Slicer's Python
console, with the film and the point list loaded as the module left them::

    exec(open("/path/to/monai_landmark/label/slicer_save_points.py").read())
    save_points("http://127.0.0.1:8000", image="film2")

It needs nothing but Python's standard library and, for :func:`save_points`, Slicer itself.
"""

import json
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import uuid


def send_points(server: str, image: str, markups: str, tag: str = "final", token: str = "") -> dict:  # type: ignore[type-arg]
    """Send a markups file to the server.

    Args:
        server: its address, e.g. ``http://127.0.0.1:8000``.
        image: id of the film on the server.
        markups: the ``.mrk.json`` file.
        tag: ``final`` makes it a label to train on.
        token: of a server with authentication.

    Returns:
        What the server answered.

    Raises:
        RuntimeError: with the server's own words, when it did not take the label.
    """
    with open(markups, "rb") as stream:
        content = stream.read()
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="label"; filename="label.json"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    query = urllib.parse.urlencode({"image": image, "tag": tag})
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    address = f"{server.rstrip('/')}/datastore/label?{query}"
    request = urllib.request.Request(address, body, headers, method="PUT")  # noqa: S310 - the user's own server
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            answer: dict = json.loads(response.read())  # type: ignore[type-arg]
            return answer
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{error.code}: {error.read().decode(errors='replace')}") from error


def save_points(server: str, image: str, node_name: str = "", tag: str = "final", token: str = "") -> dict:  # type: ignore[type-arg]
    """Send a point list of the running 3D Slicer; see :func:`send_points`.

    Args:
        server: its address.
        image: id of the film on the server.
        node_name: of the point list; by default the last one that was loaded.
        tag: as for :func:`send_points`.
        token: likewise.

    Returns:
        What the server answered.

    Raises:
        RuntimeError: if there is no point list, or the server did not take it.
    """
    import slicer  # type: ignore[import-not-found]  # only inside 3D Slicer

    nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
    nodes = [node for node in nodes if not node_name or node.GetName() == node_name]
    if not nodes:
        raise RuntimeError(f"no point list {node_name!r}; load the prediction first")
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "label.mrk.json")
        if not slicer.util.saveNode(nodes[-1], file):
            raise RuntimeError("Slicer could not write the point list")
        return send_points(server, image, file, tag, token)
